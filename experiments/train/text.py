"""The text of the training speech: seeded sentences of a small English grammar over our own words.

Three kinds are mixed (`SHARES`): grammatical sentences; random word sequences, so that a recogniser has to
listen and can't guess; sentences with numbers. They are written as Whisper writes, without symbols: digits
from 10 on and for hours and dates, words for other numbers, British spelling.

RULES is a context-free grammar. A line is `NAME: alternative | alternative`; alternatives are equally
probable unless a weight like `3*` stands before them. Word classes come from vocabulary.py. Where verb and
subject have to agree, names end in S for the third person singular and in P for the plural.
"""

from __future__ import annotations

import hashlib
import itertools
import random

from experiments.train.vocabulary import GRAMMAR_DECIDES, word_classes

Options = list[tuple["str | Options", ...]]

LONGEST = 16  # words
HELD_OUT_ONE_IN = 50
SHARES = {"grammar": 0.55, "random": 0.30, "numbers": 0.15}

# Each has one spoken form in espeak-ng: 1987 is 'nineteen hundred and eighty seven'. Two numbers never touch
# and never meet at 'and', because '1900 and 36' sounds like 1936.
NUMBERS = {
    "NUM2": [str(n) for n in range(10, 100)],
    "NUM3": [str(n) for n in range(100, 1000)],
    "OLDYEAR": [str(n) for n in range(1800, 1900)],
    "NEWYEAR": [str(n) for n in range(1900, 2031)],
    "DATE": [str(n) for n in range(1, 32)],
    "CLOCK": [str(n) for n in range(1, 13)],
}

RULES = """
SENTENCE: 12* STATEMENT . | 4* QUESTION ? | 2* COMMAND .
STATEMENT: 4* CLAUSE | 4* CLAUSE WHEN | 4* CLAUSE LINK CLAUSE | 2* LINK CLAUSE , CLAUSE | 2* PASSIVE
  | 2* RELATIVE | 3* REPORTED | 2* IS | 2* LISTED | MANNERLY | GERUND | COMPARED

PEOPLE: PERSON | PERSON | ANIMAL
PEOPLES: PERSONS | PERSONS | ANIMALS
STUFF: 4* THING | 3* COMPUTING | VEHICLE
STUFFS: 4* THINGS | 3* COMPUTINGS | VEHICLES
THE: 4* the | 2* a | this | that | my | your | his | her | every | another | each | one
THEM: 3* the | these | those | my | your | his | her | some | many | several | few | most | all the | both
  | 2* COUNT
ORDINAL: first | second | third | last | next
WHOS: 6* NAME | 4* THE PEOPLE | 3* THE ADJ PEOPLE | THE ADJ ADJ PEOPLE | he | she | it | nobody | everyone
  | someone | the ORDINAL PERSON
WHOP: 2* NAME and NAME | 4* THEM PEOPLES | 3* THEM ADJ PEOPLES | THEM ADJ ADJ PEOPLES | they | we | you
ANYWHO: WHOS | WHOP | I
WHOM: me | him | her | us | them | NAME | NAME | THE PEOPLE
WHATS: 4* THE STUFF | 4* THE ADJ STUFF | THE ADJ ADJ STUFF | the ADJ PLACE | the MASS | the ORDINAL STUFF
  | the PLACE
WHATP: 4* THEM STUFFS | 4* THEM ADJ STUFFS | THEM PLACES | the PLACES
OBJECT: 4* WHATS | 3* WHATP | MASS | ADJ MASS | some MASS | so much MASS | WHOM | something | nothing
  | everything | THE PEOPLE | half of the MASS | most of the MASS | enough MASS | COUNT UNITS of MASS
  | more STUFFS than STUFFS
PREP: in | near | behind | beside | above | below | under | by | at | into | from | through | across | along
  | around | to | over
WHERE: 3* PREP THE PLACE | 2* in TOWN | near TOWN | from TOWN to TOWN | on THE STUFF | under THE STUFF
  | with THE STUFF | without THE STUFF | beside THE VEHICLE | against THE STUFF | there | between the PLACES
WHEN: 2* TIME | 2* on DAY | in MONTH | at dawn | at noon | at night | before breakfast | after dinner
  | every morning | every day | all day | one day | in the evening | last NIGHT | during the night
  | since DAY | until DAY | for COUNT UNITS | once a week | for one UNIT
NIGHT: week | month | year | Monday | Friday
LINK: because | before | while | although | after | when | until | if | since
JOIN: and | but | or | so

CLAUSE: 4* ANYWHO DID OBJECT | 3* ANYWHO WENT WHERE | 3* WHOS DOES OBJECT | 2* WHOP DO OBJECT | I DO OBJECT
  | WHOS GOES WHERE | WHOP GO WHERE | 2* ANYWHO MODAL DO OBJECT | ANYWHO MODAL GO | WHOS OFTEN DOES OBJECT
  | ANYWHO OFTEN WENT | WHOS ISS DOING OBJECT | WHOP ISP DOING OBJECT | I'm DOING OBJECT | I am GOING WHERE
  | WHOS HASS DONE OBJECT | WHOP HASP DONE OBJECT | I HASP GONE WHERE | WHOS HASS GONE MANNER
  | WHOP HASP GONE MANNER | ANYWHO didn't DO OBJECT | WHOP don't DO any STUFFS | WHOS doesn't DO OBJECT
  | WHOP don't DO OBJECT | I don't know much about STUFFS | ANYWHO gave WHOM OBJECT | WHOS ISS GOING WHERE
  | WHOP ISP GOING WHERE | ANYWHO did not GO MANNER | ANYWHO could have DONE OBJECT
  | WHOS has been GOING MANNER | WHOP have been GOING WHERE | we SHALL DO OBJECT
  | ANYWHO WENT MANNER JOIN DID OBJECT | WHOP GO MANNER WHERE | WHOS GOES MANNER WHERE
SHALL: shall | will
MODAL: can | will | could | would | should | must | might | cannot | can't | won't | couldn't | wouldn't
  | shouldn't
ISS: is | was | isn't | wasn't | is not
ISP: are | were | aren't | weren't | are not
HASS: has | had | hasn't
HASP: have | had | haven't
HOW: 3* ADJ | very ADJ | too ADJ | so ADJ | ADJ enough | only ADJ | ADJ and ADJ | OFTEN ADJ
  | as ADJ as WHATS
IS: WHATS ISS HOW | WHATP ISP HOW | WHOS ISS HOW | WHOP ISP HOW | I am HOW | I'm HOW | I was HOW | it's HOW
  | that's THE STUFF | there ISS a STUFF WHERE | there ISP COUNT STUFFS WHERE | it's THE ADJ STUFF
  | there are STUFFS here | something ISS wrong with WHATS | WHATS made of MASS ISS ADJ | it will be HOW
  | the MASS is being DONE
MANNERLY: yesterday ANYWHO DID OBJECT | ANYWHO DID OBJECT yesterday | tomorrow ANYWHO will DO OBJECT
  | ANYWHO MANNER DID OBJECT | ANYWHO DID OBJECT MANNER | OFTEN WHOS DOES OBJECT | ANYWHO WENT MANNER WHERE
  | in TOWN , ANYWHO DID OBJECT
COMPARED: WHATS ISS more ADJ than WHATS | WHATP ISP more ADJ than WHATP
  | ADJ STUFFS and ADJ STUFFS are not like PLACES | NAME is as ADJ as NAME | WHATS is the most ADJ of all
BY: by NAME | by NAME | by THE PERSON | by THEM PERSONS | MANNER | WHEN | WHERE
PASSIVE: WHATS ISS DONE BY | WHATP ISP DONE BY | WHATS HASS been DONE BY | WHATP HASP been DONE BY
  | WHATS MODAL be DONE BY | most of the GOING is done by THE STUFF | WHATP MODAL be DONE WHEN
RELATIVE: THE PERSON who DID OBJECT WENT WHERE | THE STUFF that ANYWHO DID ISS HOW
  | THEM STUFFS that ANYWHO DID ISP HOW | THE PERSON who DOES OBJECT DOES OBJECT
  | WHATS , which was HOW , WENT MANNER | the PLACE where WHOS WENT ISS HOW
  | THE ANIMAL that WENT WHERE ISS HOW | the PERSONS who DO OBJECT are HOW | NAME , who DID OBJECT , ISS HOW
REPORTED: ANYWHO SAID that CLAUSE | ANYWHO SAID CLAUSE | WHOS SAYS that CLAUSE | WHOP SAY that CLAUSE
  | ANYWHO asked if CLAUSE | WHOS ISS SAYING that CLAUSE | WHOP HASP HAVESAID that CLAUSE | I SAY IS
  | ANYWHO asked where WHOS GOES | WHOP know why WHOS DID OBJECT | I know how they DID OBJECT
LISTED: ANYWHO DID LISTS | LISTP are ADJ | NAME , NAME and NAME WENT WHERE | WHATS ISS ADJ , ADJ and ADJ
LISTS: THE STUFF , THE STUFF and THE STUFF | STUFFS , STUFFS and STUFFS | MASS , MASS and MASS
  | THE STUFF or THE STUFF
LISTP: STUFFS , STUFFS and STUFFS | PEOPLES and ANIMALS | UNITS and UNITS | the PLACES of TOWN
GERUND: before DOING OBJECT , ANYWHO DID OBJECT | DOING OBJECT ISS HOW | GOING WHERE ISS HOW
  | ANYWHO started DOING OBJECT | after DOING OBJECT WHOS WENT MANNER | by DOING OBJECT WHOS DID OBJECT

QUESTION: 3* WH did ANYWHO DO OBJECT | who DID OBJECT | what DID OBJECT | WH does WHOS DO OBJECT
  | WH do WHOP DO OBJECT | do WHOP DO OBJECT | does WHOS DO OBJECT | did ANYWHO DO OBJECT
  | can ANYWHO DO OBJECT | WH ISS WHATS | WH ISP WHATP | which STUFF did ANYWHO DO
  | how many STUFFS did ANYWHO DO | how ADJ is WHATS | how much MASS is there | MAY WHOP GO WHERE
  | has WHOS DONE OBJECT | have WHOP DONE OBJECT | was WHATS DONE BY | were WHATP DONE BY
  | what did ANYWHO DO WHERE | who was GOING WHERE | is WHATS HOW | are WHATP HOW | isn't WHATS HOW
  | which STUFF is HOW | why are WHOP DOING OBJECT | WH can I DO WHATS
WH: where | when | why | how
MAY: could | would | should | can | will | won't | can't
COMMAND: 2* please DO OBJECT | DO OBJECT | don't DO OBJECT | please GO WHERE | GO MANNER
  | DO OBJECT before you DO OBJECT | let's DO OBJECT | DO OBJECT and DO OBJECT | let's GO WHERE
  | never DO OBJECT without DOING OBJECT | please don't GO yet | DO THE STUFF if you can | please be HOW

NUM: 3* NUM2 | 2* NUM3
YEAR: 3* OLDYEAR | 4* NEWYEAR
NUMERIC: 8* COUNTED . | 2* ASKED ?
COUNTED: on DATE MONTH , NUM PERSONS DID WHATS | NUM PEOPLES DID OBJECT | ANYWHO DID NUM STUFFS
  | WHOS DID NUM ADJ STUFFS | in YEAR , NAME DID OBJECT | in YEAR , the PERSONS DID OBJECT
  | ANYWHO DID OBJECT in YEAR | NAME was born on DATE MONTH YEAR | NAME was born in YEAR
  | WHATS was built in YEAR | ANYWHO lived in TOWN from OLDYEAR to NEWYEAR
  | NUM VEHICLES have GONE since YEAR | THE STUFF costs NUM euros | ANYWHO sold WHATS for NUM euros
  | one THING and COUNT THINGS are NUM euros | ANYWHO DID OBJECT at CLOCK o'clock
  | at CLOCK o'clock , ANYWHO WENT WHERE | ANYWHO will DO OBJECT at CLOCK o'clock
  | NUM2 per cent of the STUFFS are HOW | ANYWHO DID NUM2 per cent of the MASS
  | only NUM2 per cent of the PLACES were DONE | WHATS is NUM LENGTH LONG | WHATS took NUM SPAN
  | ANYWHO DID NUM UNITS of MASS | only one ONCE was DONE | there are NUM STUFFS in THE PLACE
  | it was NUM2 degrees in TOWN | ROOM NUM ISS HOW | WHOS ISS GOING in ROOM NUM | please DO ROOM NUM
  | WHOS is NUM2 years old
ASKED: did ANYWHO DO OBJECT in YEAR | can you DO NUM STUFFS | is it CLOCK o'clock already
  | will ANYWHO GO on DATE MONTH | what happened in YEAR | how did NUM PEOPLES DO OBJECT
  | who DID OBJECT at CLOCK o'clock | is ROOM NUM HOW
ROOM: page | chapter | table | bus | number | command | version | platform
LONG: long | wide | deep
LENGTH: metres | kilometres
ONCE: metre | kilometre | degree | euro | litre
SPAN: microseconds | milliseconds | seconds | minutes | hours | days | weeks | months | years
"""


def _grammar() -> dict[str, Options]:
    """RULES, numbers and word classes with every name replaced by its list of alternatives."""
    table: dict[str, Options] = {
        name: [(word,) for word in words] for name, words in (word_classes() | NUMBERS).items()
    }
    rules = [line.split(":", 1) for line in RULES.strip().replace("\n  ", " ").splitlines() if line]
    table.update((name, []) for name, _ in rules)
    for name, right in rules:
        for alternative in right.split("|"):
            symbols = alternative.split()
            weight = int(symbols.pop(0)[:-1]) if symbols[0].endswith("*") else 1
            table[name] += [tuple(table.get(symbol, symbol) for symbol in symbols)] * weight
    return table


_GRAMMAR = _grammar()
_CASED = sorted({word for words in word_classes().values() for word in words})
_RANDOM = [word for word in _CASED if word not in GRAMMAR_DECIDES]
_VOWEL_SOUND = frozenset(
    word for word in _CASED if word[0] in "aeiou" and not word.startswith(("one", "use", "euro"))
) | {"hour", "honest"}
# Neighbours that are said like another spelling: 'can not', 'some one', 'two May' (2 May), 'six o'clock'.
_CONFUSED = {(word[:cut], word[cut:]) for word in _CASED for cut in range(1, len(word))} | {
    (count, after)
    for count in ("one", *word_classes()["COUNT"])
    for after in ("o'clock", *word_classes()["MONTH"])
}


def vocabulary() -> tuple[str, ...]:
    """Every word a sentence can contain besides digits, in lower case, sorted."""
    return tuple(sorted({word.lower() for word in _CASED}))


def sentence(rng: random.Random) -> str:
    """One sentence of 3 to 16 words, like 'Where did Anna leave the green boat?'."""
    kind = rng.random()
    if kind < SHARES["random"]:
        return _written(_random_words(rng))
    start = _GRAMMAR["SENTENCE" if kind < SHARES["random"] + SHARES["grammar"] else "NUMERIC"]
    while True:
        tokens: list[str] = []
        _expand(start, rng, tokens)
        if 3 <= sum(token not in ",.?" for token in tokens) <= LONGEST:
            return _written(tokens)


def is_held_out(text: str) -> bool:
    """Whether a sentence is in the evaluation's share, 1 in 50, by its SHA-256: the same on every machine."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_ONE_IN == 0


def training_sentence(rng: random.Random) -> str:
    """A sentence that is never held out."""
    while is_held_out(drawn := sentence(rng)):
        pass
    return drawn


def held_out_sentence(rng: random.Random) -> str:
    """A sentence that no training text contains; takes about 50 draws."""
    while not is_held_out(drawn := sentence(rng)):
        pass
    return drawn


def _expand(options: Options, rng: random.Random, tokens: list[str]) -> None:
    for item in options[int(rng.random() * len(options))]:
        if isinstance(item, str):
            tokens.append(item)
        else:
            _expand(item, rng, tokens)


def _random_words(rng: random.Random) -> list[str]:
    while True:
        words = rng.choices(_RANDOM, k=rng.randint(3, 9))
        if not any(pair in _CONFUSED for pair in itertools.pairwise(words)):
            return [*words, "."]


def _written(tokens: list[str]) -> str:
    """Tokens as a line: 'a' is 'an' before vowels, marks join their word, the first letter is large."""
    for index, token in enumerate(tokens[:-1]):
        if token == "a" and tokens[index + 1] in _VOWEL_SOUND:
            tokens[index] = "an"
    line = " ".join(tokens).replace(" ,", ",").replace(" .", ".").replace(" ?", "?")
    return line[0].upper() + line[1:]
