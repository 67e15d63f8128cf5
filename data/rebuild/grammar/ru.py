"""Russian."""

from grammar.scenes import Activity, Scene
from grammar.table import sentence, table, words

# verb | imperfective: infinitive | present singular | present plural | past masculine
#      | perfective: infinitive | past masculine (/ feminine where irregular) | future singular | future plural
# Verbs whose perfective would say something else use the imperfective throughout.
VERBS = table(
    """
    buy | покупать | покупает | покупают | покупал | купить | купил | купит | купят
    cook | варить | варит | варят | варил | сварить | сварил | сварит | сварят
    bake | печь | печёт | пекут | пёк/пекла | испечь | испёк/испекла | испечёт | испекут
    taste | пробовать | пробует | пробуют | пробовал | попробовать | попробовал | попробует | попробуют
    eat | есть | ест | едят | ел | съесть | съел | съест | съедят
    drink | пить | пьёт | пьют | пил | выпить | выпил | выпьет | выпьют
    prepare | готовить | готовит | готовят | готовил | приготовить | приготовил | приготовит | приготовят
    cut | резать | режет | режут | резал | нарезать | нарезал | нарежет | нарежут
    choose | выбирать | выбирает | выбирают | выбирал | выбрать | выбрал | выберет | выберут
    describe | описывать | описывает | описывают | описывал | описать | описал | опишет | опишут
    photograph | фотографировать | фотографирует | фотографируют | фотографировал | сфотографировать | сфотографировал
        | сфотографирует | сфотографируют
    discuss | обсуждать | обсуждает | обсуждают | обсуждал | обсудить | обсудил | обсудит | обсудят
    look_for | искать | ищет | ищут | искал | искать | искал | будет искать | будут искать
    show | показывать | показывает | показывают | показывал | показать | показал | покажет | покажут
    draw | рисовать | рисует | рисуют | рисовал | нарисовать | нарисовал | нарисует | нарисуют
    check | проверять | проверяет | проверяют | проверял | проверить | проверил | проверит | проверят
    measure | измерять | измеряет | измеряют | измерял | измерить | измерил | измерит | измерят
    observe | наблюдать | наблюдает | наблюдают | наблюдал | наблюдать | наблюдал | будет наблюдать | будут наблюдать
    predict | предсказывать | предсказывает | предсказывают | предсказывал
        | предсказать | предсказал | предскажет | предскажут
    listen_to | слушать | слушает | слушают | слушал | послушать | послушал | послушает | послушают
    study | изучать | изучает | изучают | изучал | изучить | изучил | изучит | изучат
    explain | объяснять | объясняет | объясняют | объяснял | объяснить | объяснил | объяснит | объяснят
    watch | смотреть | смотрит | смотрят | смотрел | посмотреть | посмотрел | посмотрит | посмотрят
    win | выигрывать | выигрывает | выигрывают | выигрывал | выиграть | выиграл | выиграет | выиграют
    organise | организовывать | организует | организуют | организовывал
        | организовать | организовал | организует | организуют
    throw | бросать | бросает | бросают | бросал | бросить | бросил | бросит | бросят
    catch | ловить | ловит | ловят | ловил | поймать | поймал | поймает | поймают
    clean | чистить | чистит | чистят | чистил | почистить | почистил | почистит | почистят
    take | принимать | принимает | принимают | принимал | принять | принял | примет | примут
    treat | лечить | лечит | лечат | лечил | лечить | лечил | будет лечить | будут лечить
    pack | собирать | собирает | собирают | собирал | собрать | собрал | соберёт | соберут
    book | бронировать | бронирует | бронируют | бронировал | забронировать | забронировал | забронирует | забронируют
    plan | планировать | планирует | планируют | планировал | спланировать | спланировал | спланирует | спланируют
    wait_for | ждать | ждёт | ждут | ждал | ждать | ждал | будет ждать | будут ждать
    play | играть | играет | играют | играл | играть | играл | будет играть | будут играть
    sing | петь | поёт | поют | пел | спеть | спел | споёт | споют
    compose | сочинять | сочиняет | сочиняют | сочинял | сочинить | сочинил | сочинит | сочинят
    record | записывать | записывает | записывают | записывал | записать | записал | запишет | запишут
    practise | разучивать | разучивает | разучивают | разучивал | разучить | разучил | разучит | разучат""",
    8,
)

# thing | nominative | accusative where it differs | object of `play`, for instruments
THINGS = table(
    """
    soup | суп; bread | хлеб; cheese | сыр; salad | салат; rice | рис; cake | торт; butter | масло
    vegetables | овощи; tea | чай; coffee | кофе; breakfast | завтрак; milk | молоко; honey | мёд
    potatoes | картофель; apples | яблоки; juice | сок; pizza | пицца | пиццу; recipe | рецепт
    forecast | прогноз погоды; storm | буря | бурю; rain | дождь; snow | снег; fog | туман; rainbow | радуга | радугу
    clouds | облака; wind | ветер; temperature | температура | температуру; thunder | гром; lightning | молния | молнию
    heat | жара | жару; sky | небо; frost | мороз; humidity | влажность; climate | климат; barometer | барометр
    umbrella | зонт
    match | матч; race | гонка | гонку; tournament | турнир; final | финал; training | тренировка | тренировку
    ball | мяч; racket | ракетка | ракетку; medal | медаль; trophy | кубок; competition | соревнование
    team | команда | команду; stadium | стадион; score | счёт; gloves | перчатки; net | сетка | сетку
    jersey | футболка | футболку; marathon | марафон; helmet | шлем; gym | спортзал
    medicine | лекарство; ointment | мазь; vitamins | витамины; bandage | повязка | повязку
    thermometer | градусник; wound | рана | рану; illness | болезнь; pain | боль; symptoms | симптомы
    blood_pressure | давление; pulse | пульс; diet | диета | диету; treatment | лечение; diagnosis | диагноз
    prescription | рецепт врача; vaccine | вакцина | вакцину; clinic | клиника | клинику; pills | таблетки
    ticket | билет; suitcase | чемодан; passport | паспорт; map | карта | карту; train | поезд; bus | автобус
    hotel | гостиница | гостиницу; route | маршрут; trip | поездка | поездку; visa | виза | визу; luggage | багаж
    backpack | рюкзак; guidebook | путеводитель; airport | аэропорт; station | вокзал; island | остров
    tent | палатка | палатку; flight | рейс; harbour | порт
    guitar | гитара | гитару | на гитаре; piano | пианино | пианино | на пианино
    violin | скрипка | скрипку | на скрипке; flute | флейта | флейту | на флейте; drum | барабан
    trumpet | труба | трубу | на трубе; song | песня | песню; melody | мелодия | мелодию; concert | концерт
    album | альбом; choir | хор; orchestra | оркестр; rhythm | ритм; lyrics | текст песни; sheet_music | ноты
    symphony | симфония | симфонию; opera | опера | оперу; microphone | микрофон""",
    3,
)

# subject | nominative | genitive (after `для`) | dative | m, f or p
SUBJECTS = table(
    """
    he | он | него | ему | m; she | она | неё | ей | f; they | они | них | им | p
    mother | моя мама | моей мамы | моей маме | f; father | мой папа | моего папы | моему папе | m
    sister | моя сестра | моей сестры | моей сестре | f; brother | мой брат | моего брата | моему брату | m
    grandmother | моя бабушка | моей бабушки | моей бабушке | f
    grandfather | мой дедушка | моего дедушки | моему дедушке | m
    aunt | моя тётя | моей тёти | моей тёте | f; uncle | мой дядя | моего дяди | моему дяде | m
    friends | мои друзья | моих друзей | моим друзьям | p; neighbour | наш сосед | нашего соседа | нашему соседу | m
    neighbours | соседи | соседей | соседям | p; teacher | учительница | учительницы | учительнице | f
    engineer | инженер | инженера | инженеру | m; journalist | журналистка | журналистки | журналистке | f
    lawyer | адвокат | адвоката | адвокату | m; children | дети | детей | детям | p
    students | студенты | студентов | студентам | p; anna | Анна | Анны | Анне | f; leila | Лейла | Лейлы | Лейле | f
    maria | Мария | Марии | Марии | f; nina | Нина | Нины | Нине | f; omar | Омар | Омара | Омару | m
    david | Давид | Давида | Давиду | m; karim | Карим | Карима | Кариму | m; adam | Адам | Адама | Адаму | m""",
    4,
)

SLOTS = words(
    """
    yesterday | вчера; this_morning | сегодня утром; last_week | на прошлой неделе; last_month | в прошлом месяце
    two_days_ago | два дня назад; yesterday_evening | вчера вечером; last_year | в прошлом году
    every_day | каждый день; every_week | каждую неделю; every_morning | каждое утро; every_evening | каждый вечер
    on_sundays | по воскресеньям; every_month | каждый месяц; tomorrow | завтра; next_week | на следующей неделе
    this_evening | сегодня вечером; next_month | в следующем месяце; on_saturday | в субботу
    day_after_tomorrow | послезавтра; next_year | в следующем году
    city | в городе; village | в деревне; capital | в столице; sea | у моря; mountains | в горах; south | на юге
    holiday | сегодня праздник; little_time | осталось мало времени; guests_tomorrow | завтра придут гости
    talk | все об этом говорят; long_week | неделя была длинной; friend_asked | об этом попросил друг
    guests_arrive | придут гости; holidays_begin | начнутся каникулы; work_over | закончится работа
    others_leave | уйдут остальные; new_year | начнётся новый год
    enough_time | будет достаточно времени; others_agree | остальные согласятся; goes_well | всё пойдёт хорошо
    no_objection | никто не будет против; necessary | это будет необходимо
    i_think | я думаю; everyone_knows | все знают; we_heard | мы слышали; clear | ясно
    newspaper | в газете пишут
    when | когда; where | где; with_whom | с кем""",
)
POSITIVE = words("easy | легко; difficult | трудно; important | важно; interesting | интересно; useful | полезно")
COMPARATIVE = words(
    "easy | легче; difficult | труднее; important | важнее; interesting | интереснее; useful | полезнее"
)
TRIED = {"m": "пытался", "f": "пыталась", "p": "пытались"}


def goal(activity: Activity) -> str:
    """Return the object: an accusative, or `на` and the instrument that is played."""
    nominative, accusative, played = THINGS[activity.thing]
    return played if activity.verb == "play" else accusative or nominative


def past(cell: str, gender: str) -> str:
    """Return the past tense for `m`, `f` or `p` from the masculine, or from `masculine/feminine`."""
    masculine, _, feminine = cell.partition("/")
    feminine = feminine or masculine + "а"
    return {"m": masculine, "f": feminine, "p": feminine[:-1] + "и"}[gender]


def render(scene: Scene) -> str:
    """Say the scene in Russian."""
    frame = scene.frame
    subject, genitive, dative, gender = SUBJECTS[frame.subject]
    time, place, extra = (SLOTS.get(key, "") for key in (frame.time, frame.place, frame.extra))
    plural = gender == "p"
    verb, thing = VERBS[scene.first.verb], goal(scene.first)
    second_verb, second_thing = VERBS[scene.second.verb], goal(scene.second)
    did = f"{past(verb[5], gender)} {thing}"
    future = f"{verb[7 if plural else 6]} {thing}"
    match frame.form:
        case "present":
            return sentence(f"{subject} {time} {verb[2 if plural else 1]} {thing}", ".")
        case "past":
            return sentence(f"{time} {subject} {did} {place}", ".")
        case "future":
            return sentence(f"{subject} {time} {future}", ".")
        case "negation":
            return sentence(f"{subject} {time} не {past(verb[3], gender)} {thing}", ".")
        case "yes_no":
            return sentence(f"{subject} {time} {did}", "?")
        case "wh":
            return sentence(f"{extra} {subject} {future}", "?")
        case "because":
            return sentence(f"{subject} {'хотят' if plural else 'хочет'} {verb[4]} {thing}, потому что {extra}", ".")
        case "when":
            return sentence(f"когда {extra}, {subject} {future}", ".")
        case "if":
            return sentence(f"если {extra}, {subject} {future}", ".")
        case "that":
            return sentence(f"{extra}, что {subject} {time} {did}", ".")
        case "and":
            return sentence(f"{time} {subject} {did} и {past(second_verb[5], gender)} {second_thing}", ".")
        case "compare_doing":
            quality = f"{COMPARATIVE[frame.extra]}, чем {second_verb[0]} {second_thing}"
            return sentence(f"для {genitive} {verb[0]} {thing} {quality}", ".")
        case "compare_things":
            quality = f"{THINGS[scene.first.thing][0]} {COMPARATIVE[frame.extra]}"
            return sentence(f"для {genitive} {quality}, чем {THINGS[scene.second.thing][0]}", ".")
        case "must":
            return sentence(f"{dative} {time} нужно {verb[4]} {thing}", ".")
        case "impersonal":
            return sentence(f"{place} {POSITIVE[frame.extra]} {verb[0]} {thing}", ".")
        case "try":
            return sentence(f"{subject} {time} {TRIED[gender]} {verb[4]} {thing}", ".")
    raise ValueError(frame.form)
