"""Short chat lines by language, written by hand for the tests; romanized Hindi is `hi-Latn`."""

ENGLISH = """
hey what's up
lol no way
I can't sleep tonight
tell me a joke please
do you like pizza?
my boss is driving me crazy
what should I cook for dinner
haha that's so funny
good morning sunshine
I miss my dog so much
can you help me with my homework
who won the game last night?
I'm bored
pretend you are a pirate
nah I'm good
that movie was terrible
how do I ask her out
she didn't text me back
ok thanks bye
let's play a game
I just got a new job!
what's your favorite color
idk maybe later
you are so sweet
are you a real person?
it's raining again
where are you from
I feel a bit lonely today
wait, what?
give me some advice about money
we broke up yesterday
sing me a song
why is the sky blue
sounds great to me
I love you so much
stop talking like that
how old are you
yeah right
write a poem about the sea
I have an exam tomorrow
happy birthday to me
what time is it there
nice to meet you
you're my best friend
it doesn't make any sense
come on, tell me the truth
my mom is coming over this weekend
any plans for Friday?
I don't know what to say
thank you for listening
good night, talk tomorrow
are we still friends?
guess what happened
this is the worst day ever
do you believe in ghosts
"""

SPANISH = """
hola, ¿qué tal?
jajaja no puede ser
no puedo dormir
cuéntame un chiste
te gusta la pizza?
mi jefe me tiene harto
qué hago de cenar
eso fue muy gracioso
buenos días
extraño mucho a mi perro
me ayudas con la tarea?
quién ganó el partido anoche
estoy aburrida
haz de cuenta que eres un pirata
no gracias
esa película estuvo malísima
cómo le digo que me gusta
ya no me contestó
ok gracias adiós
vamos a jugar algo
conseguí trabajo nuevo!
cuál es tu color favorito
no sé, tal vez luego
eres muy lindo
eres una persona real?
está lloviendo otra vez
de dónde eres
hoy me siento un poco sola
espera, ¿qué?
dame un consejo sobre el dinero
terminamos ayer
cántame una canción
por qué el cielo es azul
me parece bien
te quiero mucho
deja de hablar así
cuántos años tienes
sí claro
escribe un poema sobre el mar
mañana tengo examen
feliz cumpleaños a mí
qué hora es allá
mucho gusto
eres mi mejor amiga
no tiene sentido
ándale, dime la verdad
mi mamá viene este fin de semana
planes para el viernes?
no sé qué decir
gracias por escucharme
buenas noches, hablamos mañana
seguimos siendo amigos?
adivina qué pasó
es el peor día de mi vida
crees en fantasmas
"""

HINDI = """
क्या हाल है
हाहा सच में?
मुझे नींद नहीं आ रही
कोई चुटकुला सुनाओ
तुम्हें पिज़्ज़ा पसंद है?
मेरा बॉस मुझे पागल कर रहा है
आज खाने में क्या बनाऊँ
बहुत मज़ेदार था
सुप्रभात
मुझे अपने कुत्ते की बहुत याद आती है
होमवर्क में मदद करोगे?
कल रात मैच कौन जीता
मैं बोर हो रही हूँ
मान लो तुम एक समुद्री डाकू हो
नहीं, ठीक है
वो फिल्म बहुत खराब थी
उससे कैसे बात करूँ
उसने जवाब नहीं दिया
ठीक है, शुक्रिया
चलो एक खेल खेलते हैं
मुझे नई नौकरी मिल गई!
तुम्हारा पसंदीदा रंग क्या है
पता नहीं, शायद बाद में
तुम बहुत प्यारे हो
क्या तुम सच में इंसान हो?
फिर से बारिश हो रही है
तुम कहाँ से हो
आज थोड़ा अकेला महसूस कर रहा हूँ
रुको, क्या?
पैसे के बारे में सलाह दो
कल हमारा ब्रेकअप हो गया
एक गाना गाओ
आसमान नीला क्यों है
अच्छा लगा
मैं तुमसे प्यार करता हूँ
ऐसे बात मत करो
तुम्हारी उम्र क्या है
हाँ बिल्कुल
समुद्र पर एक कविता लिखो
कल मेरी परीक्षा है
मुझे जन्मदिन मुबारक
वहाँ कितने बजे हैं
मिलकर अच्छा लगा
तुम मेरे सबसे अच्छे दोस्त हो
इसका कोई मतलब नहीं
चलो, सच बताओ
मेरी माँ इस हफ्ते आ रही हैं
शुक्रवार का क्या प्लान है?
समझ नहीं आ रहा क्या कहूँ
सुनने के लिए धन्यवाद
शुभ रात्रि, कल बात करते हैं
क्या हम अब भी दोस्त हैं?
सोचो क्या हुआ
आज का दिन सबसे बुरा था
भूतों पर विश्वास है?
"""

ROMANIZED_HINDI = """
kya haal hai
haha sach mein?
mujhe neend nahi aa rahi
koi joke sunao na
tumhe pizza pasand hai?
mera boss mujhe pagal kar raha hai
aaj khane mein kya banau
bahut mazedar tha yaar
suprabhat ji
mujhe apne kutte ki bahut yaad aati hai
homework mein help karoge?
kal raat match kaun jeeta
main bore ho rahi hu
maan lo tum ek pirate ho
nahi theek hai
wo movie bohot kharab thi
usse kaise baat karu
usne reply nahi kiya
thik hai shukriya
chalo ek game khelte hain
mujhe nayi job mil gayi!
tumhara favourite color kya hai
pata nahi, shayad baad mein
tum bahut pyare ho
kya tum sach me insaan ho?
phir se baarish ho rahi h
tum kaha se ho
aaj thoda akela feel kar raha hu
ruko, kya?
paise ke baare mein salah do
kal hamara breakup ho gaya
ek gaana gao
aasman neela kyun hai
accha laga
main tumse pyaar karta hoon
aise baat mat karo
tumhari umar kya hai
haan bilkul
samundar par ek kavita likho
kal mera exam hai
mujhe janamdin mubarak
wahan kitne baje hain
milkar achha laga
tu mera best friend hai
iska koi matlab nahi
chal sach bata
meri mummy is weekend aa rahi hain
friday ka kya plan hai?
samajh nahi aa raha kya bolu
sunne ke liye dhanyavaad
shubh ratri, kal baat karte hain
kya hum ab bhi dost hain?
socho kya hua
aaj ka din sabse bura tha
bhoot pe vishwas hai kya?
"""

LINES: list[tuple[str, str]] = [
    (language, line)
    for language, text in (
        ("en", ENGLISH),
        ("es", SPANISH),
        ("hi", HINDI),
        ("hi-Latn", ROMANIZED_HINDI),
    )
    for line in text.strip().splitlines()
]

SHORT_TURNS = (
    ("es", "no"), ("es", "ok"), ("es", "me"), ("es", "de"), ("es", "wow"), ("es", "hmm"),
    ("es", "super"), ("en", "lol"), ("en", "hahaha"), ("en", "haha"), ("en", "nah"), ("en", "omg"),
    ("en", "pizza?"), ("en", "boss"), ("hi", "ok"), ("hi", "lol"), ("hi", "wow"), ("hi-Latn", "ok"),
    ("hi-Latn", "no"), ("hi-Latn", "hmm"), ("hi-Latn", "help"),
    ("hi-Latn", "lol lol lol lol lol lol lol lol lol lol"),
)  # fmt: skip
"""Turns that could stand in a talk in any of the languages, with the language of such a talk."""
