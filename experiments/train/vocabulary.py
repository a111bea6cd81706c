"""The words of the training text, by the part they play in the grammar of text.py.

No two of them are said alike by espeak-ng's English voices (no 'see' beside 'sea'), except those in
GRAMMAR_DECIDES, and none is said in two ways ('read', 'record'): so a perfect recogniser makes no errors.
That is also why words like 'no', 'their', 'eat' ('ate') and 'hundred' (numbers from 10 on are digits) are
missing. Nouns and verbs are listed in their base form, irregular ones with their other forms ('man/men',
'find/found/found').
"""

from __future__ import annotations

PERSON = """engineer sailor captain doctor teacher painter farmer baker driver pilot nurse student neighbour
visitor worker programmer manager librarian singer dancer gardener lawyer soldier mechanic guard journalist
scientist king queen child/children woman/women man/men boy girl friend uncle brother sister mother father
daughter clerk actor researcher customer expert"""
ANIMAL = """dog cat fox horse cow pig goose/geese duck chicken rabbit bird whale dolphin spider frog snake
lion tiger monkey elephant wolf/wolves donkey eagle owl mouse/mice"""
PLACE = """harbour house garden kitchen office station market bridge church school library hospital museum
factory workshop warehouse lighthouse castle village city town island river forest mountain valley beach field
street road park restaurant hotel airport farm bedroom corridor laboratory bakery tunnel canal corner bank
lake tower coast pier platform"""
VEHICLE = """ship boat ferry yacht lifeboat train plane bus taxi van car truck bicycle tractor rocket balloon
robot engine crane"""
THING = """anchor rope mast deck container rudder compass net lantern flag barrel crate chain table chair
window door lamp clock cup plate bowl spoon fork knife/knives bottle basket mirror carpet curtain bed
shelf/shelves bucket ladder hammer nail candle box letter envelope pencil pen notebook desk keyboard screen
printer folder map ticket bag key coin umbrella coat shirt shoe jacket button camera radio piano guitar drum
picture ball wheel motor valve pipe switch wire bolt machine stone book apple pear banana lemon potato tomato
carrot onion egg cake biscuit pie flower tree"""
COMPUTING = """processor kernel graph queue cache batch token program computer server network file buffer
thread block register pointer function loop profiler bug signal router laptop chip circuit vector tensor layer
model decoder encoder sample frame stream task step gap counter timer number command message error warning
password page column node version option value limit rate delay request answer question experiment measurement
plot chapter sentence word language instruction result memory story idea plan problem reason mistake promise
lesson meeting journey price rule"""
MASS = """bread butter cheese milk water coffee tea soup rice honey sugar salt pepper chocolate jam sand snow
ice rain fog mist wind thunder smoke dust gold silver iron copper steel glass wool music furniture luggage
cargo work time hardware software throughput bandwidth latency power heat electricity oil paper money news
weather"""

TRANSITIVE = """measure carry paint repair clean open find/found/found lose/lost/lost build/built/built
sell/sold/sold bring/brought/brought take/took/taken lift push pull move touch draw/drew/drawn
write/wrote/written count check test copy follow visit help call ask love like need want remember
choose/chose/chosen break/broke/broken fix wash cook drink/drank/drunk catch/caught/caught give/gave/given
load launch profile blame describe compare trace store save delete reach fill keep/kept/kept share examine
improve change replace remove protect collect deliver discover destroy design accept transcribe compile
search"""
INTRANSITIVE = """wait sleep/slept/slept sail jump run/ran/run laugh cry smile sing/sang/sung dance
swim/swam/swum fall/fell/fallen arrive travel walk speak/spoke/spoken talk listen stand/stood/stood
sit/sat/sat stay sink/sank/sunk drift crash grow/grew/grown return stop start finish leave/left/left fail"""
REPORTING = "say/said/said think/thought/thought believe hope claim explain notice"
DOUBLED = frozenset({"run", "sit", "stop", "swim", "travel"})  # stopped, sitting

ADJECTIVE = """quick brown lazy old new young small large big little tall short long green red blue yellow
black white grey purple orange pink golden heavy light dark bright warm cold hot cool wet dry dirty fast slow
quiet loud happy sad angry tired hungry thirsty busy empty full wooden narrow wide deep shallow strong gentle
soft hard smooth rough sharp round flat square thick thin rich cheap expensive famous foreign simple difficult
easy important useful useless strange beautiful ugly pretty lovely friendly polite brave clever careful honest
calm patient healthy ill early late modern ancient local public private secret common rare perfect terrible
wonderful excellent awful dangerous safe fresh sweet delicious frozen sunny cloudy rainy windy foggy stormy
icy idle parallel serial digital electric random stable correct wrong precise average single double final
different"""
MANNER = """slowly quickly quietly loudly carefully happily sadly gently angrily badly well politely suddenly
together alone again twice once immediately perfectly easily clearly outside inside upstairs downstairs abroad
away everywhere here"""
FREQUENCY = "often always never sometimes usually seldom still almost finally really already just probably"
TIME = "today tonight now soon later then"

NAME = """Anna Peter Maria David Sarah James Emma Oliver Sophie Daniel Laura Robert Helen George Alice Martin
Julia Simon Nora Victor Clara Edward Lucy Thomas Rachel Michael Susan Henry Patrick Rebecca Felix Ingrid Oscar
Monica Hugo Teresa Arthur Amelia Leo Diana Samuel Margaret Philip Eleanor Walter Beatrice"""
TOWN = """London Paris Berlin Oxford Bristol Glasgow Cardiff Dublin Hamburg Vienna Madrid Lisbon Rome Oslo
Copenhagen Helsinki Amsterdam Brussels Athens Prague Warsaw Venice Dover Liverpool Manchester Leeds Plymouth
Brighton Edinburgh Munich Geneva Milan Boston Chicago Toronto Sydney Tokyo Naples Cambridge Belfast"""
MONTH = "January February March April May June July August September October November December"
DAY = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
COUNT = "two three four five six seven eight nine"
UNIT = "euro metre kilometre degree litre second minute hour day week month year millisecond microsecond"

FUNCTION = """the a an this that these those my your his her one first third last next and or but if because
before while although after when until since where who what why how which in on at to from with without for of
over under between into near behind beside above below through across along around against during shall by
about as than not is are was were be been being am do does did done have has had will would can could should
must might there I you he she it we they me him us them everyone someone nobody everything something nothing
each every all both many much more most few several another any some please very so too only enough cannot
know per cent o'clock dawn noon night morning evening dinner breakfast tomorrow yesterday yet born lived
happened costs made half don't doesn't didn't isn't aren't wasn't weren't can't won't couldn't wouldn't
shouldn't hasn't haven't I'm it's that's let's"""

# Said alike by some voices (a Caribbean 'they' is 'day', a Birmingham 'his' is 'is'), but no sentence of the
# grammar stays one when they are exchanged. Random word sequences leave them out.
GRAMMAR_DECIDES = frozenset({"to", "too", "two", "for", "four", "as", "has", "his", "is", "day", "they"})


def plural(noun: str) -> str:
    if noun.endswith(("s", "x", "ch", "sh")) or noun in ("potato", "tomato"):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeou":
        return noun[:-1] + "ies"
    return noun + "s"


def _nouns(text: str) -> tuple[list[str], list[str]]:
    singulars, plurals = [], []
    for entry in text.split():
        singular, _, irregular = entry.partition("/")
        singulars.append(singular)
        plurals.append(irregular or plural(singular))
    return singulars, plurals


def _forms(entry: str) -> tuple[str, str, str, str, str]:
    """'find/found/found' or 'carry' as base, third person, past, participle, -ing form."""
    base, *irregular = entry.split("/")
    stem = base + base[-1] if base in DOUBLED else base
    ing = (stem[:-1] if stem.endswith("e") else stem) + "ing"
    if base.endswith("y") and base[-2] not in "aeou":
        regular = base[:-1] + "ied"
    else:
        regular = stem + ("d" if stem.endswith("e") else "ed")
    past, participle = irregular or (regular, regular)
    return base, plural(base), past, participle, ing


def word_classes() -> dict[str, list[str]]:
    """Every word in its written form (names capitalised), by class.

    Nouns have a class for the singular (THING) and one for the plural (THINGS); verbs have one for each form:
    DO (transitive), GO (intransitive) or SAY (reporting), then DOES, DID, DONE, DOING.
    """
    classes = {
        name: text.split()
        for name, text in {
            "MASS": MASS, "ADJ": ADJECTIVE, "MANNER": MANNER, "OFTEN": FREQUENCY, "TIME": TIME, "NAME": NAME,
            "TOWN": TOWN, "MONTH": MONTH, "DAY": DAY, "COUNT": COUNT, "FUNCTION": FUNCTION,
        }.items()
    }  # fmt: skip
    nouns = {
        "PERSON": PERSON, "ANIMAL": ANIMAL, "PLACE": PLACE, "VEHICLE": VEHICLE, "THING": THING,
        "COMPUTING": COMPUTING, "UNIT": UNIT,
    }  # fmt: skip
    for name, text in nouns.items():
        classes[name], classes[name + "S"] = _nouns(text)
    verbs = {
        ("DO", "DOES", "DID", "DONE", "DOING"): TRANSITIVE,
        ("GO", "GOES", "WENT", "GONE", "GOING"): INTRANSITIVE,
        ("SAY", "SAYS", "SAID", "HAVESAID", "SAYING"): REPORTING,
    }
    for names, text in verbs.items():
        forms = [_forms(entry) for entry in text.split()]
        classes.update(
            (name, list(column)) for name, column in zip(names, zip(*forms, strict=True), strict=True)
        )
    return classes
