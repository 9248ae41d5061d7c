"""Identifiers to plant in real text, and near misses, made without the code under test.

Check digits come from python-stdnum, an independent implementation. Nothing here is anybody's:
every number is drawn at random.
"""

import random
import string
from collections.abc import Callable

from stdnum import iban, luhn, verhoeff
from stdnum.es import dni, nie

Maker = Callable[[random.Random], str]

IBAN_BODIES = {
    "DE": "dddddddddddddddddd", "GB": "LLLLdddddddddddddd", "ES": "dddddddddddddddddddd",
    "FR": "dddddddddddddddddddddd1", "NL": "LLLLdddddddddd", "NO": "ddddddddddd",
    "MT": "LLLLddddddddddddddddddddddd", "PL": "dddddddddddddddddddddddd",
}  # fmt: skip
CARDS = (("4", 16), ("51", 16), ("2221", 16), ("34", 15), ("37", 15), ("6011", 16), ("3528", 16),
         ("36", 14), ("508500", 16))  # fmt: skip


def digits(rng: random.Random, count: int, first: str = string.digits) -> str:
    return rng.choice(first) + "".join(rng.choices(string.digits, k=count - 1))


def letters(rng: random.Random, count: int) -> str:
    return "".join(rng.choices(string.ascii_uppercase, k=count))


def grouped(text: str, sizes: tuple[int, ...], separator: str) -> str:
    parts, start = [], 0
    for size in sizes:
        parts.append(text[start : start + size])
        start += size
    return separator.join(part for part in parts if part)


def card(rng: random.Random) -> str:
    prefix, size = rng.choice(CARDS)
    body = prefix + digits(rng, size - len(prefix) - 1)
    number = body + luhn.calc_check_digit(body)
    sizes = (4, 6, 5) if size < 16 else (4, 4, 4, 4)
    return grouped(number, rng.choice([sizes, (16,)]), rng.choice(" -"))


def iban_number(rng: random.Random) -> str:
    country = rng.choice(sorted(IBAN_BODIES))
    body = "".join(
        digits(rng, 1) if kind == "d" else letters(rng, 1) if kind == "L" else "1"
        for kind in IBAN_BODIES[country]
    )
    number = country + iban.calc_check_digits(f"{country}00{body}") + body
    written = grouped(number, (4,) * 9, rng.choice(["", " "]))
    return rng.choice([written, written.lower()])


def aadhaar(rng: random.Random) -> str:
    body = digits(rng, 11, "23456789")
    return grouped(body + verhoeff.calc_check_digit(body), (4, 4, 4), rng.choice(["", " ", "-"]))


def dni_number(rng: random.Random) -> str:
    body = digits(rng, 8)
    letter = dni.calc_check_digit(body)
    dotted = f"{body[:2]}.{body[2:5]}.{body[5:]}-{letter}"
    return rng.choice([body + letter, f"{body}-{letter}", body + letter.lower(), dotted])


def nie_number(rng: random.Random) -> str:
    body = rng.choice("XYZ") + digits(rng, 7)
    return rng.choice(["", "-"]).join([body[0], body[1:], nie.calc_check_digit(body)])


def pan(rng: random.Random) -> str:
    return f"{letters(rng, 3)}{rng.choice('PCHF')}{letters(rng, 1)}{digits(rng, 4, '123')}" + (
        letters(rng, 1)
    )


def ssn(rng: random.Random) -> str:
    area = rng.choice([n for n in range(1, 900) if n != 666])
    return rng.choice("- ").join(
        [f"{area:03}", f"{rng.randint(1, 99):02}", f"{rng.randint(1, 9999):04}"]
    )


def email(rng: random.Random) -> str:
    name = rng.choice(["jo.lee", "maria+chat", "x_99", "A.Kumar", "ñandu", "o'neil"])
    host = rng.choice(["example.com", "mail.example.co.uk", "uni-x.example.edu", "example.io"])
    return f"{name}{rng.randint(1, 99)}@{host}"


def phone(rng: random.Random) -> str:
    area, exchange = digits(rng, 3, "23456789"), digits(rng, 3, "23456789")
    last, mobile = digits(rng, 4, "123456789")[:3] + "7", digits(rng, 9, "6789")[:9] + "3"
    return rng.choice(
        [
            f"({area}) {exchange}-{last}", f"{area}-{exchange}-{last}", f"{area}.{exchange}.{last}",
            f"+1 {area} {exchange} {last}", f"+44 20 7946 0{last[1:]}", f"+34 6{mobile[1:9]}",
            f"+91 {mobile[:5]} {mobile[5:]}", mobile, f"0{mobile}", f"{mobile[:5]} {mobile[5:]}",
            f"612 34 {last[:2]} 5{last[3]}", f"020 7946 0{last[1:]}",
            f"call me on {exchange}-{last}", f"my number is {area}{exchange}{last}",
        ]
    )  # fmt: skip


COUNTRY_CODES = {"34": 9, "44": 10, "49": 10, "33": 9, "91": 10, "1": 10, "52": 10, "351": 9}
"""E.164 country codes with the digits of a national number there (ITU's list of plans)."""


def dialled(rng: random.Random) -> str:
    """An international number with the prefix one dials (E.123) instead of a plus."""
    code, size = rng.choice(sorted(COUNTRY_CODES.items()))
    national = digits(rng, size, "23456789")
    if code == "1":  # North America: the exchange code starts from 2, too
        national = national[:3] + digits(rng, 3, "23456789") + national[6:]
    national = national[:-1] + rng.choice("123456789")
    written = rng.choice(
        [national, grouped(national, (3, 3, 4), " "), f"{national[:2]} {national[2:]}"]
    )
    return rng.choice(["00", "00 ", "011 "]) + code + rng.choice(["", " "]) + written


SPANISH_CUES = (
    "escribeme al", "escríbeme al", "llama al", "llámame al", "mi móvil es", "mi número es", "tlf",
    "teléfono:", "contáctanos al", "whatsapp",
)  # fmt: skip


def spanish_phone(rng: random.Random) -> str:
    """Plan Nacional de Numeración: nine digits; 6 and 7[1-4] mobile, 8[1-8] and 9[1-8] by place."""
    head = rng.choice(["6" + digits(rng, 1), "7" + digits(rng, 1, "1234"),
                       rng.choice("89") + digits(rng, 1, "12345678")])  # fmt: skip
    number = head + digits(rng, 6) + rng.choice("123456789")
    asked = rng.choice(SPANISH_CUES)
    written = [grouped(number, (3, 3, 3), " "), grouped(number, (3, 2, 2, 2), rng.choice(" .-"))]
    if head[0] in "89":
        written.append(grouped(number, (2, 3, 2, 2), " "))
    return rng.choice([*written, f"{asked} {number}", f"{asked} {rng.choice(written)}"])


def french_phone(rng: random.Random) -> str:
    """ARCEP's plan: 0, then 1 to 5 by place, 6 and 7 mobile, 9; said and written in pairs."""
    number = "0" + digits(rng, 1, "1234567") + digits(rng, 7) + rng.choice("123456789")
    pairs = grouped(number, (2,) * 5, rng.choice(" .-"))
    return rng.choice([pairs, pairs, f"appelle-moi au {number}"])


def british_phone(rng: random.Random) -> str:
    """Ofcom's numbers for drama."""
    last = rng.choice("123456789")
    return rng.choice([f"07700 9001{digits(rng, 1)}{last}", f"020 7946 0{digits(rng, 2)}{last}",
                       f"0114 496 0{digits(rng, 2)}{last}"])  # fmt: skip


def any_phone(rng: random.Random) -> str:
    return rng.choice([phone, phone, dialled, spanish_phone, french_phone, british_phone])(rng)


SECRET_PARAMETERS = (
    "access_token", "refresh_token", "client_secret", "password",  # RFC 6749, appendix A
    "client_assertion", "assertion",  # RFC 7521 and 7523
    "code_verifier",  # RFC 7636
    "id_token", "id_token_hint",  # OpenID Connect Core and RP-Initiated Logout
    "X-Amz-Signature", "X-Amz-Security-Token", "sig",  # signed URLs: AWS, Azure
    "PHPSESSID", "JSESSIONID", "jsessionid", "sid",  # servers' sessions
)  # fmt: skip
SERVICE_PARAMETERS = ("reset token", "user token", "oauth2 token", "api key", "auth key",
                      "login token", "magic link token", "api key 2", "session id")  # fmt: skip
CODE_PARAMETERS = ("code", "device_code", "auth code")
"""RFC 6749 §4.1.2 and RFC 8628: opaque, and too long to guess (RFC 6749 §10.10)."""


def named(words: str, rng: random.Random) -> str:
    """The words in a style that services write parameters in."""
    first, *others = words.split(" ")
    camel = first + "".join(word.capitalize() for word in others)
    return rng.choice(["_".join([first, *others]), "-".join([first, *others]), camel])


def secret_url(rng: random.Random) -> str:
    """A URL with one parameter that is a secret by the documents above."""
    value = "".join(rng.choices(string.ascii_letters + string.digits + "-_", k=24))
    name = rng.choice([*SECRET_PARAMETERS, *SERVICE_PARAMETERS, *CODE_PARAMETERS])
    if name in CODE_PARAMETERS:
        value = rng.choice(["", "4/0A"]) + value
    parameter = f"{named(name, rng)}={value}"
    return rng.choice(
        [
            f"https://x.example/cb?{parameter}", f"https://x.example/cb?state=xyz&{parameter}",
            f"https://x.example/cb?{parameter}&scope=email", f"https://x.example/cb#{parameter}",
        ]
    )  # fmt: skip


def any_token_url(rng: random.Random) -> str:
    return rng.choice([token_url, secret_url])(rng)


def ipv4(rng: random.Random) -> str:
    return ".".join(str(rng.randint(1, 254)) for _ in range(4)).replace("127.", "128.", 1)


def ipv6(rng: random.Random) -> str:
    groups = [f"{rng.randint(1, 65535):x}" for _ in range(7)]
    return rng.choice(
        [":".join(["2001", *groups]), f"2a02:{groups[0]}::{groups[1]}", f"fe80::{groups[2]}"]
    )


def token_url(rng: random.Random) -> str:
    secret = "".join(rng.choices(string.ascii_letters + string.digits, k=20))
    return rng.choice(
        [
            f"https://x.example/reset?user=1&token={secret}",
            f"http://x.example/a?access_token={secret}#top",
            f"www.x.example/login?sessionid={secret}",
            f"https://api.example/v1?api_key={secret}&q=cats",
            f"https://bob:{secret}@git.example/repo.git",
            f"https://x.example/s?X-Amz-Signature={secret}",
            f"https://x.example/in/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{secret}",
        ]
    )


MAKERS: dict[str, Maker] = {
    "email": email, "phone": any_phone, "card": card, "iban": iban_number, "ssn": ssn,
    "aadhaar": aadhaar, "pan": pan, "dni": dni_number, "nie": nie_number,
    "token_url": any_token_url, "ipv4": ipv4, "ipv6": ipv6,
}  # fmt: skip


def spoiled(text: str, rng: random.Random) -> str:
    """The same with its last letter or digit changed, so that a check digit no longer holds."""
    last = text[-1]
    others = string.digits if last.isdigit() else "TRWAGMYFPDXBNJZSQVHLCKE"
    return text[:-1] + rng.choice([other for other in others if other != last.upper()])


def near_miss(rng: random.Random) -> str:
    """Something that looks like an identifier, and is none."""
    year, month, day = rng.randint(1900, 2030), rng.randint(1, 12), rng.randint(1, 28)
    number = digits(rng, 9, "12345")
    isbn = digits(rng, 9)
    return rng.choice(
        [
            spoiled(dni_number(rng), rng), spoiled(nie_number(rng), rng),
            f"{year}-{month:02}-{day:02}", f"{day:02}/{month:02}/{year}", f"{day}.{month}.{year}",
            f"${rng.randint(1, 9)},{digits(rng, 3)},{digits(rng, 3)}.99", f"{year}-{year + 1}",
            f"version {rng.randint(1, 9)}.{rng.randint(0, 20)}.{rng.randint(0, 9)}.1",
            f"v{rng.randint(1, 9)}.{rng.randint(0, 20)}.{rng.randint(0, 9)}",
            f"order #{digits(rng, 10)}", f"order number {digits(rng, 10, '6789')}",
            f"invoice {digits(rng, 10)}", f"tracking number 1Z{digits(rng, 8)}",
            f"ISBN 978-{isbn[0]}-{isbn[1:5]}-{isbn[5:]}-{isbn[0]}", f"ISBN {isbn}X",
            f"{rng.randint(1, 12)}:{rng.randint(10, 59)}:{rng.randint(10, 59)}",
            f"000-{digits(rng, 2)}-{digits(rng, 4)}", f"9{digits(rng, 2)}-12-{digits(rng, 4)}",
            f"300.{rng.randint(1, 9)}.{rng.randint(256, 999)}.1", f"{number[:3]}-{number[3:5]}",
            f"3.{digits(rng, 14)}", f"{number} people", f"@{letters(rng, 6).lower()}",
            f"https://example.com/watch?v={letters(rng, 8)}", "https://medium.com/@someone/x",
            "http://localhost:8080/a", "127.0.0.1", "std::cout", "12::30", "AC/DC 2001",
            "GB12 is a postcode area", f"{letters(rng, 5)}{digits(rng, 3)}", "abcde1234f",
            "meet @ 5.30", "me@home", "24/7", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16",
            "https://shop.example/?code=SAVE20", "https://x.example/?promoCode=SUMMER2024",
            "https://x.example/?countryCode=ES", f"https://x.example/?zipcode={digits(rng, 5)}",
            "https://x.example/?keyword=flowers", "https://x.example/?monkey=george",
            "https://x.example/cb?token_type=bearer", "https://x.example/?tokenizer=llama3",
            f"{digits(rng, 9, '6789')} people", f"9{grouped(digits(rng, 8), (2, 3, 3), ' ')} euros",
            "01 02 03 04 05", f"0{digits(rng, 1)} {digits(rng, 2)} {digits(rng, 2)}", "0034", "007",
            f"000{digits(rng, 8)}", f"order {digits(rng, 9, '6789')}", "00 12 34",
            "00:1A:2B:3C:4D:5E", "token=", "https://x.example/?token=", "x-1234",
        ]
    )  # fmt: skip


def bad_checksum(rng: random.Random) -> str:
    """A number of a kind with check digits, spoiled in one place."""
    maker = rng.choice([card, aadhaar, iban_number, dni_number, nie_number])
    return spoiled(maker(rng), rng)
