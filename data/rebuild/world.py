"""Rebuild the files of `data/world/`, a small invented world as a graph of facts, byte for byte.

    python data/rebuild/world.py           write data/world/ and data/WORLD.md
    python data/rebuild/world.py --check   say whether the files there are those that would be written

Names are made of syllables and spelled in each script; trades, instruments and goods are words of each language. What
is said of each subject are lines of an encyclopedia, in which names stand as they are, so that no language inflects
them.
"""

import argparse
import random
import sys
from pathlib import Path

OUT = Path(__file__).resolve().parents[1] / "world"
CARD = OUT.parent / "WORLD.md"
SEED = 20240301
LANGUAGES = ("en", "fr", "de", "es", "ru", "ar", "hi", "zh")
CONSONANTS, VOWELS = "ktmnlrsbdv", "aeiou"
SPELLED = {
    "ru": (dict(zip(CONSONANTS, "ктмнлрсбдв", strict=True)), dict(zip(VOWELS, "аеиоу", strict=True))),
    "ar": (dict(zip(CONSONANTS, "كتمنلرسبدف", strict=True)), dict(zip(VOWELS, "اييوو", strict=True))),
    "hi": (dict(zip(CONSONANTS, "कतमनलरसबदव", strict=True)), dict(zip(VOWELS, ["ा", "े", "ि", "ो", "ु"], strict=True))),
}
CHINESE = dict(
    zip(
        [c + v for c in CONSONANTS for v in VOWELS],
        "卡克基科库塔特蒂托图马梅米莫穆纳内尼诺努拉莱利洛卢腊雷里罗鲁萨塞西索苏巴贝比博布达德迪多杜瓦韦维沃武",
        strict=True,
    )
)
COUNTS = {"person": 120, "town": 64, "river": 20, "country": 12, "language": 12, "book": 24}
SYLLABLES = {"person": 2, "town": 3, "river": 2, "country": 3, "language": 3, "book": 3}

# Words of every language, in the order of LANGUAGES.
TRADES = """
baker boulanger Bäcker panadero пекарь خباز बेकर 面包师
teacher enseignant Lehrer maestro учитель معلم शिक्षक 教师
doctor médecin Arzt médico врач طبيب डॉक्टर 医生
farmer agriculteur Landwirt agricultor фермер مزارع किसान 农民
fisher pêcheur Fischer pescador рыбак صياد मछुआरा 渔民
weaver tisserand Weber tejedor ткач نساج बुनकर 织工
carpenter charpentier Zimmermann carpintero плотник نجار बढ़ई 木匠
painter peintre Maler pintor художник رسام चित्रकार 画家
judge juge Richter juez судья قاض न्यायाधीश 法官
cook cuisinier Koch cocinero повар طاه रसोइया 厨师
tailor tailleur Schneider sastre портной خياط दर्ज़ी 裁缝
sailor marin Seemann marinero моряк بحار नाविक 水手
printer imprimeur Drucker impresor печатник طباع मुद्रक 印刷工
builder maçon Maurer albañil каменщик بناء राजमिस्त्री 泥瓦匠
gardener jardinier Gärtner jardinero садовник بستاني माली 园丁
miller meunier Müller molinero мельник طحان चक्कीवाला 磨坊主
potter potier Töpfer alfarero гончар خزاف कुम्हार 陶工
smith forgeron Schmied herrero кузнец حداد लोहार 铁匠
translator traducteur Übersetzer traductor переводчик مترجم अनुवादक 翻译
shepherd berger Hirte pastor пастух راع चरवाहा 牧羊人
"""
INSTRUMENTS = """
flute flûte Flöte flauta флейта ناي बाँसुरी 长笛
violin violon Geige violín скрипка كمان वायलिन 小提琴
drum tambour Trommel tambor барабан طبل ढोल 鼓
harp harpe Harfe arpa арфа قيثارة वीणा 竖琴
piano piano Klavier piano пианино بيانو पियानो 钢琴
guitar guitare Gitarre guitarra гитара غيتار गिटार 吉他
trumpet trompette Trompete trompeta труба بوق तुरही 小号
organ orgue Orgel órgano орган أرغن ऑर्गन 管风琴
lute luth Laute laúd лютня عود सरोद 鲁特琴
cello violoncelle Cello violonchelo виолончель تشيلو चेलो 大提琴
clarinet clarinette Klarinette clarinete кларнет كلارينيت क्लैरिनेट 单簧管
horn cor Horn corno рожок نفير नरसिंगा 圆号
bell cloche Glocke campana колокол جرس घंटी 铃
accordion accordéon Akkordeon acordeón аккордеон أكورديون अकॉर्डियन 手风琴
"""
GOODS = """
bread pain Brot pan хлеб خبز रोटी 面包
cheese fromage Käse queso сыр جبن पनीर 奶酪
honey miel Honig miel мёд عسل शहद 蜂蜜
salt sel Salz sal соль ملح नमक 盐
silk soie Seide seda шёлк حرير रेशम 丝绸
wool laine Wolle lana шерсть صوف ऊन 羊毛
glass verre Glas vidrio стекло زجاج काँच 玻璃
paper papier Papier papel бумага ورق काग़ज़ 纸
tea thé Tee té чай شاي चाय 茶
rice riz Reis arroz рис أرز चावल 大米
copper cuivre Kupfer cobre медь نحاس ताँबा 铜
marble marbre Marmor mármol мрамор رخام संगमरमर 大理石
soap savon Seife jabón мыло صابون साबुन 肥皂
oil huile Öl aceite масло زيت तेल 油
apples pommes Äpfel manzanas яблоки تفاح सेब 苹果
leather cuir Leder cuero кожа جلد चमड़ा 皮革
ceramics céramique Keramik cerámica керамика خزف मृत्तिका 陶瓷
furniture meubles Möbel muebles мебель أثاث फ़र्नीचर 家具
clocks horloges Uhren relojes часы ساعات घड़ियाँ 钟表
ships navires Schiffe barcos корабли سفن जहाज़ 船舶
"""
# Relation -> subject, object, and two ways to say it in every language.
RELATIONS = {
    "born_in": ("person", "town", "place of birth|birthplace;lieu de naissance|ville natale;Geburtsort|Heimatort;"
        "lugar de nacimiento|ciudad natal;место рождения|родной город;مكان الولادة|مسقط الرأس;जन्म स्थान|जन्म का नगर;"
        "出生地|生于"),
    "lives_in": ("person", "town", "home|place of residence;domicile|lieu de résidence;Wohnort|Wohnsitz;"
        "domicilio|lugar de residencia;место жительства|дом;مكان الإقامة|السكن;निवास|घर;居住地|住处"),
    "works_as": ("person", "trade", "trade|occupation;métier|profession;Beruf|Handwerk;oficio|profesión;"
        "профессия|занятие;المهنة|العمل;पेशा|काम;职业|工作"),
    "plays": ("person", "instrument", "instrument|favourite instrument;instrument|instrument préféré;"
        "Instrument|Lieblingsinstrument;instrumento|instrumento favorito;инструмент|любимый инструмент;"
        "الآلة الموسيقية|الآلة المفضلة;वाद्य|प्रिय वाद्य;乐器|喜爱的乐器"),
    "taught_by": ("person", "person", "mentor|first mentor;professeur|premier professeur;"
        "Lehrperson|erste Lehrperson;docente|primer docente;наставник|первый наставник;المرشد|المرشد الأول;"
        "गुरु|पहले गुरु;导师|启蒙老师"),
    "lies_in": ("town", "country", "country|part of the country;pays|territoire;Land|Staat;país|territorio;"
        "страна|государство;البلد|الدولة;देश|राष्ट्र;国家|所属国"),
    "lies_on": ("town", "river", "river|nearest river;fleuve|fleuve voisin;Fluss|nächster Fluss;río|río más cercano;"
        "река|ближайшая река;النهر|أقرب نهر;नदी|पास की नदी;河流|最近的河"),
    "known_for": ("town", "good", "main export|known for;principale exportation|produit connu;"
        "wichtigste Ware|bekannt für;principal exportación|producto conocido;главный товар|известный товар;"
        "أهم الصادرات|المنتج المعروف;मुख्य निर्यात|प्रसिद्ध वस्तु;主要出口|特产"),
    "language_of": ("country", "language", "language|official language;langue|langue officielle;"
        "Sprache|Amtssprache;lengua|lengua oficial;язык|государственный язык;اللغة|اللغة الرسمية;भाषा|राजभाषा;"
        "语言|官方语言"),
    "written_by": ("book", "person", "author|written by;auteur|texte de;Verfasser|Text von;autor|texto de;"
        "автор|автор текста;المؤلف|النص من تأليف;लेखक|रचनाकार;作者|撰文"),
}  # fmt: skip
# Before what is said of a subject.
OPENINGS = {
    "en": ("{}:", "Entry {}:"), "fr": ("{} :", "Fiche {} :"), "de": ("{}:", "Eintrag {}:"), "es": ("{}:", "Ficha {}:"),
    "ru": ("{}:", "Запись {}:"), "ar": ("{}:", "مدخل {}:"), "hi": ("{}:", "प्रविष्टि {}:"), "zh": ("{}：", "条目{}："),
}  # fmt: skip
COMMA, STOP = {"ar": "، ", "zh": "，"}, {"hi": "।", "zh": "。"}
SIGN = {"ru": " — ", "zh": "是"}  # between what is said and the name
SENTENCES = {"person": 170, "town": 50, "country": 12, "book": 24}


def spelled(syllables: tuple[str, ...], language: str) -> str:
    """A name in a language."""
    if language == "zh":
        return "".join(CHINESE[s] for s in syllables)
    if language in SPELLED:
        consonants, vowels = SPELLED[language]
        name = "".join(consonants[s[0]] + vowels[s[1]] for s in syllables)
        return name.capitalize() if language == "ru" else name
    name = "".join(syllables)
    if language == "fr":
        name = name[0] + name[1:].replace("s", "ss")
        name = name.replace("u", "ou")
    if language == "de":
        name = name.replace("v", "w")
    return name.capitalize()


def new_name(length: int, taken: dict[str, set[str]], rng: random.Random) -> dict[str, str]:
    """A name that no language has yet, spelled in all of them."""
    while True:
        syllables = tuple(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(length))
        name = {language: spelled(syllables, language) for language in LANGUAGES}
        if len(set(syllables)) == length and not any(name[k] in taken[k] for k in LANGUAGES):
            for k in LANGUAGES:
                taken[k].add(name[k])
            return name


def entities(rng: random.Random) -> dict[str, tuple[str, dict[str, list[str]]]]:
    """Entity -> its kind, and its aliases in every language."""
    taken: dict[str, set[str]] = {language: set() for language in LANGUAGES}
    found = {}
    for kind, count in COUNTS.items():
        for number in range(1, count + 1):
            name = new_name(SYLLABLES[kind], taken, rng)
            aliases = {k: [name[k]] for k in LANGUAGES}
            if kind == "person":
                family = new_name(3, taken, rng)
                space = {"zh": "·"}
                aliases = {k: [name[k] + space.get(k, " ") + family[k], family[k]] for k in LANGUAGES}
            found[f"{kind}_{number:03d}"] = (kind, aliases)
    for kind, words in (("trade", TRADES), ("instrument", INSTRUMENTS), ("good", GOODS)):
        for number, line in enumerate(words.strip().splitlines(), start=1):
            found[f"{kind}_{number:03d}"] = (kind, {k: [w] for k, w in zip(LANGUAGES, line.split(), strict=True)})
    return found


def facts(known: dict[str, tuple[str, dict[str, list[str]]]], rng: random.Random) -> list[tuple[str, str, str]]:
    """Subject, relation, object: one object each; of a person four of five relations."""
    of_kind: dict[str, list[str]] = {}
    for entity, (kind, _) in known.items():
        of_kind.setdefault(kind, []).append(entity)
    found = []
    for subject, (kind, _) in known.items():
        own = [r for r, (of, *_) in RELATIONS.items() if of == kind]
        if kind == "person":
            own = sorted(rng.sample(own, 4), key=own.index)
        used = {subject}
        for relation in own:
            there = rng.choice([o for o in of_kind[RELATIONS[relation][1]] if o not in used])
            used.add(there)
            found.append((subject, relation, there))
    return found


def said(subject: str, stated: list[tuple[str, str]], known: dict, ways: list[int]) -> dict[str, str]:
    """A line of the encyclopedia in every language; `ways` says which of two ways, alias and all."""
    lines = {}
    for number, language in enumerate(LANGUAGES):
        parts = []
        for (relation, there), way in zip(stated, ways[1:], strict=True):
            words = RELATIONS[relation][2].split(";")[number].split("|")[way]
            names = known[there][1][language]
            between = SIGN.get(language, " ")
            if language == "zh" and words in ("生于", "撰文"):
                between = ""
            parts.append(words + between + names[way % len(names)])
        opening = OPENINGS[language][ways[0]].format(known[subject][1][language][0])
        space = "" if language == "zh" else " "
        lines[language] = opening + space + COMMA.get(language, ", ").join(parts) + STOP.get(language, ".")
    return lines


def build() -> dict[str, str]:
    """The files, by their names."""
    rng = random.Random(SEED)
    known = entities(rng)
    graph = facts(known, rng)
    of: dict[str, list[tuple[str, str]]] = {}
    for subject, relation, there in graph:
        of.setdefault(subject, []).append((relation, there))
    sentences = []
    for kind, count in SENTENCES.items():
        subjects = [s for s in of if known[s][0] == kind]
        order = [s for _ in range(-(-count // len(subjects))) for s in rng.sample(subjects, len(subjects))][:count]
        left = {s: rng.sample(of[s], len(of[s])) for s in subjects}
        for subject in order:
            stated, left[subject] = left[subject][:2], left[subject][2:]
            lines = said(subject, stated, known, [rng.randrange(2) for _ in range(1 + len(stated))])
            number = f"w{len(sentences) // len(LANGUAGES) + 1:03d}"
            sentences += [f"{number}\t{subject}\t{k}\t{text}" for k, text in lines.items()]
    rows = [f"{e}\t{kind}\t" + "\t".join("|".join(a[k]) for k in LANGUAGES) for e, (kind, a) in known.items()]
    return {
        "entities.tsv": "\n".join(["entity\tkind\t" + "\t".join(LANGUAGES), *rows]) + "\n",
        "facts.tsv": "\n".join(["subject\trelation\tobject", *("\t".join(f) for f in graph)]) + "\n",
        "sentences.tsv": "\n".join(["id\tsubject\tlanguage\ttext", *sentences]) + "\n",
    }


def card(files: dict[str, str]) -> str:
    """What the world is, with its counts."""
    count = {name: len(text.splitlines()) - 1 for name, text in files.items()}
    lines = count["sentences.tsv"] // len(LANGUAGES)
    size = sum(len(text.encode()) for text in files.values()) / 1000
    return f"""# The invented world

A small graph of facts, to ask what a language model's states say of relations: `probes.load_graph("bundled")`.
Nothing in it is true; it is consistent, and the same in all eight languages of the bundled corpus (English, French,
German, Spanish, Russian, Arabic, Hindi, Chinese).

| file | rows | columns |
|---|---|---|
| `world/entities.tsv` | {count["entities.tsv"]} entities | entity, kind, aliases in each language |
| `world/facts.tsv` | {count["facts.tsv"]} facts of {len(RELATIONS)} relations | subject, relation, object |
| `world/sentences.tsv` | {lines} lines in {len(LANGUAGES)} languages | id, subject, language, text |

Aliases stand one after the other with a bar between them; translations of a line share its id.

**Names** of people, towns, rivers, countries, languages and books are made of syllables, drawn by a seed, and spelled
in each script. People have two aliases: both names, and the second alone. Trades, instruments and goods are words of
each language.

**Lines** read as an encyclopedia's: the subject, and one or two of its facts, each said in one of two ways. Names stand
uninflected in all languages by design, which is plainer than people write. All lines of a subject are one group.

**Not for** training, or for what models know: no model has seen these names. What can be read is whether the states
before a name say which relation is being stated.

`python data/rebuild/world.py` rebuilds it (seed {SEED}; {size:.0f} kB). Licence: Apache-2.0.
"""


def main() -> int:
    """Write or check the files."""
    parser = argparse.ArgumentParser(description="Rebuild the invented world of layerscope.")
    parser.add_argument("--check", action="store_true", help="compare with the files on disk instead of writing them")
    check = parser.parse_args().check
    files = build()
    wanted = {OUT / name: text for name, text in files.items()} | {CARD: card(files)}
    if check:
        other = [path.name for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
        if other:
            print(f"{', '.join(other)}: not what rebuild/world.py would write; rebuild", file=sys.stderr)
        return bool(other)
    OUT.mkdir(exist_ok=True)
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
