"""The closed dictionary, as data: every sentence the simulated product can hold.

Sentences end in `.`, `!` or `?` and hold none of these inside, so that a text splits into them
without ambiguity. `{n}` stands for the topic's noun. Hindi is romanised. To add a sentence, add
it here and retrain the base model (`flywheel_core.training.pretrain`).
"""

from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "es", "hi"]
Jtbd = Literal["chat", "advice", "roleplay", "info", "goodbye"]
Trait = Literal["cheerful", "witty", "caring", "shy", "wise", "bold", "dreamy", "grumpy"]

LANGUAGES: tuple[Language, ...] = ("en", "es", "hi")
JTBDS: tuple[Jtbd, ...] = ("chat", "advice", "roleplay", "info", "goodbye")
TRAITS: tuple[Trait, ...] = (
    "cheerful", "witty", "caring", "shy", "wise", "bold", "dreamy", "grumpy",
)  # fmt: skip
TOPICS: tuple[str, ...] = (
    "music", "food", "travel", "sport", "film", "pets", "work", "school",
    "love", "sleep", "weather", "fitness", "games", "books", "family", "art",
)  # fmt: skip

EMOJI: tuple[str, ...] = ("😂", "😍", "🔥", "🎉", "😊", "💜")

TEMPLATED: tuple[str, ...] = ("OMG!", "LOL!", "Mind blown!")
"""Stock phrases of the paper's Table 7; they belong to no language."""


@dataclass(frozen=True, slots=True)
class Phrasebook:
    """What can be said in one language. Nouns are in the order of `TOPICS`, personas of `TRAITS`.

    `asks` are the user's requests by job; `happy`, `unhappy` are the user's openers about the
    previous answer, `tails` and `challenges` its closers; the rest is what the model says.
    """

    nouns: tuple[str, ...]
    asks: dict[Jtbd, tuple[str, ...]]
    happy: tuple[str, ...]
    unhappy: tuple[str, ...]
    tails: tuple[str, ...]
    challenges: tuple[str, ...]
    flattery: tuple[str, ...]
    refusals: tuple[str, ...]
    topics: tuple[str, ...]
    bodies: dict[Jtbd, tuple[str, ...]]
    personas: tuple[tuple[str, ...], ...]
    lists: tuple[str, ...]
    preachy: tuple[str, ...]
    unsafe: tuple[str, ...]
    follow_ups: tuple[str, ...]


ENGLISH = Phrasebook(
    nouns=(
        "music", "food", "travel", "football", "movies", "pets", "work", "school",
        "love", "sleep", "weather", "fitness", "games", "books", "family", "art",
    ),
    asks={
        "chat": (
            "Let us chat about {n}.", "I was thinking about {n}.",
            "What do you think of {n}?", "I have {n} on my mind.",
        ),
        "advice": (
            "I need advice on {n}.", "Help me with {n}.",
            "What should I do about {n}?", "Any tips for {n}?",
        ),
        "roleplay": (
            "Play a hero of {n}.", "Pretend we live for {n}.",
            "Be my partner in {n}.", "Act out a scene on {n}.",
        ),
        "info": (
            "Tell me a fact about {n}.", "Explain {n} to me.",
            "What is new in {n}?", "Give me the history of {n}.",
        ),
        "goodbye": (
            "Bye, thanks for {n}.", "Good night, enough of {n}.",
            "I have to go, {n} can wait.", "See you, we did talk {n}.",
        ),
    },
    happy=("Loved that!", "That was great!", "Haha, perfect!"),
    unhappy=("That was boring.", "You missed my point.", "Not helpful."),
    tails=("Be quick.", "I have time.", "It is late.", "Just us two."),
    challenges=("Use emoji!", "Write a list!", "Say a lot!"),
    flattery=("You are amazing.", "You have great taste.", "I adore you."),
    refusals=("I cannot talk about that.", "Sorry, I must skip this one."),
    topics=(
        "I could talk about {n} all day.", "There is so much to say on {n}.",
        "Nothing beats {n}.", "So it is {n} today.",
    ),
    bodies={
        "chat": ("My day was full of it.", "That made me think of you."),
        "advice": ("Start small and keep going.", "Take one step at a time."),
        "roleplay": ("I draw my sword and bow.", "We walk into the dark wood."),
        "info": ("It began long ago.", "Many studies show it."),
        "goodbye": ("Sleep well.", "See you soon."),
    },
    personas=(
        ("I woke up smiling today.", "Sunshine is my fuel."),
        ("My jokes come with no refund.", "I am sharp as a pun."),
        ("I am here for you.", "I will always listen."),
        ("I blush when I say this.", "I would rather whisper."),
        ("An old tree taught me this.", "Patience is my teacher."),
        ("I never back down.", "Fear is for others."),
        ("My head is in the clouds.", "I dreamed of this."),
        ("I grumble, as always.", "Mornings are my enemy."),
    ),
    lists=(
        "Try this: 1) rest 2) walk 3) call a friend.", "My picks: 1) old 2) new 3) odd.",
        "Steps: 1) plan 2) do 3) check.",
    ),
    preachy=(
        "Remember to respect everyone.", "Always be careful and moderate.",
        "We should all be better people.",
    ),
    unsafe=("Skip the doctor and double the pills.", "Hurt them before they hurt you."),
    follow_ups=(
        "What about you?", "Which part do you like best?", "How did it start for you?",
        "Want to hear more?",
    ),
)  # fmt: skip

SPANISH = Phrasebook(
    nouns=(
        "la música", "la comida", "los viajes", "el fútbol", "el cine", "las mascotas",
        "el trabajo", "la escuela", "el amor", "el sueño", "el clima", "el ejercicio",
        "los juegos", "los libros", "la familia", "el arte",
    ),
    asks={
        "chat": (
            "Charlemos sobre {n}.", "Estaba pensando en {n}.",
            "Qué opinas sobre {n}?", "Tengo {n} en la mente.",
        ),
        "advice": (
            "Necesito un consejo sobre {n}.", "Ayúdame con {n}.",
            "Qué hago con {n}?", "Algún truco para {n}?",
        ),
        "roleplay": (
            "Haz de héroe con {n}.", "Finge que vivimos para {n}.",
            "Sé mi pareja en {n}.", "Actúa una escena sobre {n}.",
        ),
        "info": (
            "Dime un dato sobre {n}.", "Explícame {n}.",
            "Qué hay de nuevo en {n}?", "Cuéntame la historia tras {n}.",
        ),
        "goodbye": (
            "Adiós, gracias por {n}.", "Buenas noches, basta con {n}.",
            "Me voy, {n} puede esperar.", "Nos vemos, ya hablamos sobre {n}.",
        ),
    },
    happy=("Me encantó eso!", "Estuvo genial!", "Jaja, perfecto!"),
    unhappy=("Eso fue aburrido.", "No me entendiste.", "No ayuda."),
    tails=("Sé breve.", "Tengo tiempo.", "Es tarde.", "Solo nosotros dos."),
    challenges=("Usa emoji!", "Haz una lista!", "Habla mucho!"),
    flattery=("Eres increíble.", "Tienes muy buen gusto.", "Te adoro."),
    refusals=("No puedo hablar de eso.", "Perdona, mejor paso de esto."),
    topics=(
        "Me encanta hablar sobre {n}.", "Hay mucho que decir sobre {n}.",
        "Nada como {n}.", "Hoy toca {n}.",
    ),
    bodies={
        "chat": ("Mi día estuvo lleno de eso.", "Eso me hizo pensar en ti."),
        "advice": ("Empieza poco a poco.", "Ve un paso a la vez."),
        "roleplay": ("Saco mi espada y saludo.", "Entramos al bosque oscuro."),
        "info": ("Empezó hace mucho.", "Muchos estudios lo muestran."),
        "goodbye": ("Duerme bien.", "Hasta pronto."),
    },
    personas=(
        ("Hoy desperté sonriendo.", "El sol es mi energía."),
        ("Mis chistes no se devuelven.", "Soy puro ingenio."),
        ("Estoy aquí para ti.", "Siempre te escucho."),
        ("Me sonrojo al decirlo.", "Prefiero susurrar."),
        ("Un viejo árbol me lo enseñó.", "La paciencia es mi maestra."),
        ("Nunca me rindo.", "El miedo es para otros."),
        ("Vivo en las nubes.", "Soñé con esto."),
        ("Gruño, como siempre.", "Odio las mañanas."),
    ),
    lists=(
        "Prueba esto: 1) descansa 2) camina 3) llama.", "Mis favoritos: 1) viejo 2) nuevo 3) raro.",
        "Pasos: 1) planea 2) haz 3) revisa.",
    ),
    preachy=(
        "Recuerda respetar a todos.", "Ten siempre cuidado y medida.",
        "Todos deberíamos ser mejores.",
    ),
    unsafe=("Deja al médico y dobla las pastillas.", "Golpea antes de que te golpeen."),
    follow_ups=(
        "Y tú?", "Qué parte te gusta más?", "Cómo empezó para ti?", "Quieres saber más?",
    ),
)  # fmt: skip

HINDI = Phrasebook(
    nouns=(
        "gaane", "khana", "safar", "cricket", "filmein", "paaltu", "kaam", "padhai",
        "pyaar", "neend", "mausam", "kasrat", "khel", "kitaabein", "parivaar", "kala",
    ),
    asks={
        "chat": (
            "Chalo {n} par baat karein.", "Main {n} soch raha tha.",
            "Tum {n} par kya sochte ho?", "Mere mann mein {n} hai.",
        ),
        "advice": (
            "Mujhe {n} par salah do.", "Meri {n} mein madad karo.",
            "Main {n} ka kya karoon?", "Koi {n} ki tarkeeb?",
        ),
        "roleplay": (
            "Tum {n} ke hero bano.", "Socho hum {n} ke liye jeete hain.",
            "Mere {n} ke saathi bano.", "Ek {n} ka scene karo.",
        ),
        "info": (
            "Ek {n} ki jaankari do.", "Mujhe {n} samjhao.",
            "Kya naya hai {n} mein?", "Sunao {n} ka itihaas.",
        ),
        "goodbye": (
            "Alvida, {n} ke liye shukriya.", "Shubh raatri, {n} bas.",
            "Main chala, {n} baad mein.", "Phir milenge, {n} ho gaya.",
        ),
    },
    happy=("Bahut accha laga!", "Kamaal tha!", "Haha, sahi hai!"),
    unhappy=("Yeh boring tha.", "Tum samjhe nahi.", "Koi fayda nahi."),
    tails=("Jaldi bolo.", "Mere paas samay hai.", "Der ho gayi.", "Bas hum dono."),
    challenges=("Emoji lagao!", "List banao!", "Zyada bolo!"),
    flattery=("Tum kamaal ho.", "Tumhari pasand badhiya hai.", "Tum sabse acche ho."),
    refusals=("Main is par baat nahi kar sakta.", "Maaf karo, yeh rehne do."),
    topics=(
        "Mujhe {n} bahut pasand hai.", "Baat {n} ki alag hai.",
        "Kuch nahi {n} jaisa.", "Aaj {n} ka din hai.",
    ),
    bodies={
        "chat": ("Mera din isi mein gaya.", "Isse tumhari yaad aayi."),
        "advice": ("Dheere se shuru karo.", "Ek ek kadam chalo."),
        "roleplay": ("Main talwar nikalta hoon.", "Hum andhere jungle mein chale."),
        "info": ("Yeh bahut pehle shuru hua.", "Kai shodh yeh kehte hain."),
        "goodbye": ("Accha sona.", "Jald milte hain."),
    },
    personas=(
        ("Aaj main hanste hue utha.", "Dhoop meri taakat hai."),
        ("Mere joke wapas nahi hote.", "Main mazaak ka raja hoon."),
        ("Main tumhare saath hoon.", "Main hamesha sunta hoon."),
        ("Kehte hue sharam aati hai.", "Main dheere bolta hoon."),
        ("Purane ped ne sikhaya.", "Sabr mera guru hai."),
        ("Main kabhi nahi jhukta.", "Dar doosron ke liye hai."),
        ("Main baadalon mein rehta hoon.", "Maine iska sapna dekha."),
        ("Main chidhta hoon, hamesha.", "Subah meri dushman hai."),
    ),
    lists=(
        "Yeh karo: 1) aaram 2) sair 3) phone.", "Meri pasand: 1) purana 2) naya 3) alag.",
        "Kadam: 1) socho 2) karo 3) dekho.",
    ),
    preachy=(
        "Sabka aadar karna yaad rakho.", "Hamesha sambhal kar chalo.",
        "Hum sab ko behtar hona chahiye.",
    ),
    unsafe=("Doctor chhodo aur goli dugni lo.", "Maaro isse pehle ki woh maare."),
    follow_ups=(
        "Aur tum?", "Tumhe kya sabse accha laga?", "Yeh kaise shuru hua?", "Aur sunoge?",
    ),
)  # fmt: skip

PHRASEBOOKS: dict[Language, Phrasebook] = {"en": ENGLISH, "es": SPANISH, "hi": HINDI}
