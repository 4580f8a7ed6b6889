"""Public data sets: where they are, under which licence, which files they have, and what others counted in them.

Facts only, each with the address where it is stated; what nobody states is left out. ``docs/data.md`` shows this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qcq.data import assistments, datashop, edmine, ednet, icd, junyi, neurips2020, poj, xes3g5m
from qcq.errors import UnknownNameError

# Where facts are stated.
EDUDATA = "https://github.com/tswsxk/EduData"
PYKT = "https://pykt-toolkit.readthedocs.io/en/latest/datasets.html"
HFUT = "https://github.com/HFUT-LEC/awesome-student-cognitive-modeling"
GERVET = "https://github.com/theophilegervet/learner-performance-prediction"
KC_EXPANSION = "https://github.com/amkraneYoussef/KC-Expansion-Audit"
KT_AUDIT = "https://github.com/JustinZheng161/kt-slm-audit-public"
DATA_CARDS = "https://github.com/Oscar-man-shrestha/eval-validity-edu/blob/ce4a75bd3f8442670f8e09594d29ef0c455337f6/docs/data_cards"
DESIGN_EFFECTS = (
    "https://github.com/ismayilzeynal/clustered-item-design-effects/blob/"
    "73a364a71780ccfd587f6b81f1d4d2615c1b9801/data/README.md"
)
AKT = "https://github.com/arghosh/AKT/tree/01b7e8d7d7c862cabc9467108e3e7f2555653a88/data/assist2009_pid"
S2KT = "https://github.com/rabitts2023/S2KT/tree/5cc1858be31df8635ea3b5163bac6c6da15e8822/data/assist09"
PEBG = "https://github.com/ApexEDM/PEBG/tree/d124c2fdd93d96d36cd20c73dd7a952f0c5fb1a0"
CSC311 = "https://github.com/Supermac30/CSC311-Project/tree/9a79725269ac236913bbef872f274b786608ea05/code/data"
ICD = "https://github.com/Mr-nnng/ICD/tree/d73287ac879ca154a50260421276657a7c33367c/data"
QCQ = "docs/data.md"
TERMS = "https://sites.google.com/site/assistmentsdata/termsofuseforusingdata"
KAGGLE = "https://www.kaggle.com/datasets/junyiacademy/learning-activity-public-dataset-by-junyi-academy"
XES = "https://github.com/ai4ed/XES3G5M"
EDNET = "https://github.com/riiid/ednet"
KDD_PAGE = "https://www.kdd.org/kdd-cup/view/kdd-cup-2010-student-performance-evaluation/Data"
KDD = "https://pslcdatashop.web.cmu.edu/KDDCup/downloads.jsp"
NEURIPS = "https://eedi.com/projects/neurips-education-challenge"
JUNYI = "https://pslcdatashop.web.cmu.edu/DatasetInfo?datasetId=1198"
STATICS = "https://pslcdatashop.web.cmu.edu/DatasetInfo?datasetId=507"
OF_ASSISTMENTS = "own terms: not to be passed on"


@dataclass(frozen=True)
class Copy:
    """A file as it is published.

    Attributes
    ----------
    path : inside the folder; ``*`` stands for anything.
    size, sha256, source : bytes and digest, and the address that states them; None and empty where nobody does.
    """

    path: str
    size: int | None = None
    sha256: str = ""
    source: str = ""


@dataclass(frozen=True)
class Expected:
    """A file that a folder should hold.

    Attributes
    ----------
    copies : the names or editions under which it is published; one of them is enough.
    columns : of its heading.
    needed : whether the data set can't be read without it.
    number : how many files there are where the path has a ``*``, if that is known.
    """

    copies: tuple[Copy, ...]
    columns: tuple[str, ...] = ()
    needed: bool = True
    number: int | None = None


@dataclass(frozen=True)
class Counts:
    """What somebody counted, often after a filter of their own.

    Attributes
    ----------
    students, questions, concepts, responses : None where it isn't stated.
    by, source : who states it, and where.
    note : after which filter, or what counts differently.
    ours : whether the readers of this library counted it, so that it has to come out again.
    """

    students: int | None
    questions: int | None
    concepts: int | None
    responses: int | None
    by: str
    source: str
    note: str = ""
    ours: bool = False


@dataclass(frozen=True)
class PublicData:
    """A public data set.

    Attributes
    ----------
    title, page : its name and official page.
    reader : the format that reads it; empty where none can, and ``note`` says why.
    licence, licence_source : in words, and where it is stated; empty where no source was found.
    note : what to know before the download.
    settings : of the reader.
    """

    title: str
    page: str
    reader: str
    files: tuple[Expected, ...]
    counts: tuple[Counts, ...] = ()
    licence: str = ""
    licence_source: str = ""
    note: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


def _one(path: str, columns: tuple[str, ...] = (), *, needed: bool = True) -> Expected:
    return Expected((Copy(path),), columns, needed)


def _anywhere(name: str, columns: tuple[str, ...] = ()) -> Expected:
    """A file of the NeurIPS 2020 archive, wherever the reader looks for it."""
    paths = (name if folder == "." else f"{folder}/{name}" for folder in neurips2020.FOLDERS)
    return Expected(tuple(Copy(path) for path in paths), columns)


def _eedi(tasks: str) -> tuple[Expected, ...]:
    archive = Copy(
        "data.zip",
        656_787_242,
        "c7f01672360f1adeb3cf9507d72455d7be035bf897e4a167293e8938049800e1",
        DESIGN_EFFECTS,
    )
    return (
        _anywhere(f"question_metadata_task_{tasks}.csv", neurips2020.META),
        _anywhere(neurips2020.SUBJECTS, ("SubjectId", "Name", "ParentId")),
        _anywhere(f"train_task_{tasks}.csv", ("QuestionId", "UserId", "AnswerId", "IsCorrect")),
        _anywhere(f"answer_metadata_task_{tasks}.csv", ("AnswerId", "DateAnswered")),
        Expected((archive,), needed=False),
    )


STEPS = (*datashop.STEPS, datashop.GRADED)

PUBLIC: dict[str, PublicData] = {
    "assistments-2009": PublicData(
        "ASSISTments 2009-2010, skill builder",
        "https://sites.google.com/site/assistmentsdata/home/2009-2010-assistment-data/skill-builder-data-2009-2010",
        "assistments",
        (
            Expected(
                (
                    Copy(
                        "skill_builder_data.csv",
                        83_201_940,
                        "f22e3fb7872c1784ce93b0f9ebabbe0cbcac4f896fd8b4a11667b9715d77dbdc",
                        DESIGN_EFFECTS,
                    ),
                    Copy(
                        "skill_builder_data_corrected.csv",
                        None,
                        "1aa296e00b6c88c4d6fad4ca2ae4866484d9fe5484f38f5c8c94dfc49f045e08",
                        f"{DATA_CARDS}/assistments2009.md",
                    ),
                    Copy(
                        "skill_builder_data_corrected_collapsed.csv",
                        None,
                        "162ef8d2d28bcbfea6591a282994062bd8d5eaa00636544292a0d268dca6e5da",
                        KT_AUDIT,
                    ),
                ),
                assistments.COLUMNS,
            ),
        ),
        (Counts(4_217, 26_688, None, 346_860, "pyKT", PYKT, "the corrected and collapsed file"),),
        OF_ASSISTMENTS,
        TERMS,
        "three editions: as first published (with duplicate rows), corrected (a row a skill), and corrected and "
        "collapsed (a row an attempt, skills joined as 1_13)",
    ),
    "assistments-2012": PublicData(
        "ASSISTments 2012-2013, with predictions",
        "https://sites.google.com/site/assistmentsdata/datasets/2012-13-school-data-with-affect",
        "assistments",
        (_one("2012-2013-data-with-predictions-4-final.csv", tuple(assistments.RELEASES["2012-2013"])),),
        (
            Counts(29_018, 53_091, None, 2_711_813, "HFUT-LEC", HFUT, "with a skill"),
            Counts(None, None, 265, None, "Gervet et al.", GERVET),
            Counts(27_066, 45_716, None, 2_541_201, "pyKT", PYKT),
        ),
        OF_ASSISTMENTS,
        TERMS,
    ),
    "assistments-2015": PublicData(
        "ASSISTments 2015, skill builder",
        "https://sites.google.com/site/assistmentsdata/datasets/2015-assistments-skill-builder-data",
        "",
        (_one("2015_100_skill_builders_main_problems.csv", ("user_id", "log_id", "sequence_id", "correct")),),
        (Counts(19_917, None, 100, 708_631, "EduData, pyKT", PYKT),),
        OF_ASSISTMENTS,
        TERMS,
        "can't be read: it names problem sets and no problems, so there is no graph to walk on",
    ),
    "assistments-2017": PublicData(
        "ASSISTments 2017, data mining competition",
        "https://sites.google.com/view/assistmentsdatamining/dataset",
        "assistments",
        (
            Expected(
                (
                    Copy(
                        "anonymized_full_release_competition_dataset.csv",
                        None,
                        "b5b366b11d9250af319f3117c5ccb39544fd72379026bfd33514e4bbd047bf73",
                        KC_EXPANSION,
                    ),
                ),
                tuple(assistments.RELEASES["2017"]),
            ),
        ),
        (
            Counts(1_709, None, None, 942_816, "EduData", EDUDATA),
            Counts(None, 3_162, 102, None, "Gervet et al.", GERVET),
        ),
    ),
    "xes3g5m": PublicData(
        "XES3G5M",
        XES,
        "xes3g5m",
        (
            _one(xes3g5m.QUESTIONS),
            _one(xes3g5m.CONCEPTS),
            Expected(
                (Copy("question_level/train_valid_sequences_quelevel.csv"), Copy("kc_level/train_valid_sequences.csv")),
                ("fold", "uid", "questions", "concepts", "responses"),
            ),
            Expected((Copy("question_level/test_quelevel.csv"), Copy("kc_level/test.csv")), ("uid", "questions")),
            Expected(
                (
                    Copy(
                        "XES3G5M.*",
                        None,
                        "62d145bd995248f78726a0b6ab69612cf418e3118d0fe01bfe6f4c61b5072f73",
                        f"{DATA_CARDS}/xes3g5m.md",
                    ),
                ),
                needed=False,
            ),
        ),
        (
            Counts(
                18_066,
                7_652,
                865,
                5_549_635,
                "Liu et al. 2023",
                "https://neurips.cc/virtual/2023/poster/73614",
                "what both levels drop can't come back: up to two responses a student fewer",
            ),
        ),
        "MIT",
        f"{XES}/blob/main/LICENSE",
    ),
    "ednet": PublicData(
        "EdNet KT1",
        EDNET,
        "ednet",
        (
            Expected(tuple(Copy(path) for path in ednet.QUESTIONS), ednet.META),
            Expected(
                tuple(Copy(f"{folder}/u*.csv") for folder in ednet.STUDENTS if folder != "."),
                tuple(name for name in ednet.COLUMNS if name in ("timestamp", "question_id", "user_answer")),
                number=784_309,
            ),
        ),
        (Counts(784_309, 13_169, None, None, "Riiid", EDNET),),
        "CC BY-NC 4.0",
        EDNET,
        "1.2 GB to download, 5.6 GB unpacked; the table of questions is a download of its own (Contents)",
    ),
    "junyi-2015": PublicData(
        "Junyi Academy 2015",
        JUNYI,
        "junyi",
        (
            Expected(
                (
                    Copy(
                        junyi.TABLE,
                        None,
                        "13292cc2c809985abbacedaba434e39aeb02a7fcb2a32f17b60c4d3f4d769546",
                        f"{DATA_CARDS}/junyi_timed.md",
                    ),
                ),
                junyi.COLUMNS,
            ),
            _one(junyi.LOG, junyi.ANSWERS),
        ),
        (Counts(247_606, 837, None, 25_925_992, "EduData", EDUDATA, "questions are rows of the table"),),
        "no commercial use",
        JUNYI,
    ),
    "junyi-2019": PublicData(
        "Junyi Academy 2019",
        KAGGLE,
        "junyi",
        (_one(junyi.CONTENT, ("ucid", *junyi.LEVELS)), _one(junyi.ATTEMPTS, junyi.GIVEN)),
        (Counts(72_758, None, None, 16_217_311, "Kaggle's description", KAGGLE, "a copy of it has 72,630 students"),),
        "CC BY-NC-SA 4.0",
        KAGGLE,
    ),
    "kddcup-algebra-2005": PublicData(
        "KDD Cup 2010: Algebra I 2005-2006",
        KDD,
        "kddcup",
        (
            Expected(
                (
                    Copy(
                        "algebra_2005_2006_train.txt",
                        None,
                        "19528668530108555e344e5bfcc68c762f63a458a32038599d189667e4f10407",
                        KC_EXPANSION,
                    ),
                ),
                STEPS,
            ),
        ),
        (
            Counts(574, 210_710, 112, 809_694, "pyKT", PYKT, "the training file"),
            Counts(575, None, None, 813_661, "KDD Cup", KDD_PAGE, "of which files isn't said"),
        ),
    ),
    "kddcup-algebra-2006": PublicData(
        "KDD Cup 2010: Algebra I 2006-2007",
        KDD,
        "kddcup",
        (_one("algebra_2006_2007_train.txt", STEPS),),
        (
            Counts(1_338, None, None, 2_270_384, "EduData", EDUDATA, "the training file"),
            Counts(1_840, None, None, 2_289_726, "KDD Cup", KDD_PAGE, "of which files isn't said"),
        ),
    ),
    "kddcup-bridge-2006": PublicData(
        "KDD Cup 2010: Bridge to Algebra 2006-2007",
        KDD,
        "kddcup",
        (_one("bridge_to_algebra_2006_2007_train.txt", STEPS),),
        (
            Counts(1_146, 207_856, 493, 3_679_199, "pyKT", PYKT, "the training file"),
            Counts(1_146, None, None, 3_656_871, "KDD Cup", KDD_PAGE, "of which files isn't said"),
        ),
    ),
    "statics": PublicData(
        "OLI Engineering Statics, Fall 2011",
        STATICS,
        "statics",
        (
            Expected(
                (Copy("AllData_student_step_2011F.csv"), Copy("*student_step*.txt")),
                (*datashop.STEPS, datashop.SAID, "KC (F2011)"),
            ),
        ),
        (Counts(333, 1_224, None, 194_947, "pyKT", PYKT, "hints included"),),
    ),
    "eedi-1-2": PublicData(
        "Eedi: NeurIPS 2020, tasks 1 and 2",
        NEURIPS,
        "eedi",
        _eedi("1_2"),
        (Counts(118_971, 27_613, None, 15_867_850, "HFUT-LEC", HFUT),),
        licence="CC BY-NC-ND 4.0",
        licence_source=DESIGN_EFFECTS,
        settings={"tasks": "1_2"},
    ),
    "eedi-3-4": PublicData(
        "Eedi: NeurIPS 2020, tasks 3 and 4",
        NEURIPS,
        "eedi",
        _eedi("3_4"),
        (
            Counts(None, 948, 57, 1_382_727, "pyKT", PYKT, "subjects of level 3"),
            Counts(4_918, None, None, None, "HFUT-LEC", HFUT),
        ),
        licence="CC BY-NC-ND 4.0",
        licence_source=DESIGN_EFFECTS,
        settings={"tasks": "3_4"},
    ),
    "eedi-csc311": PublicData(
        "Eedi, as the course CSC311 gives it out",
        CSC311,
        "eedi",
        (
            Expected(
                (
                    Copy(
                        "train_data.csv",
                        572_347,
                        "f36d362105a67cf9a2c9ffa0473d8f86c1e9ce090cacb7eff8d72a86dafe8f07",
                        CSC311,
                    ),
                )
            ),
            Expected(
                (
                    Copy(
                        "valid_data.csv",
                        71_552,
                        "d2aa18534b42aacde56858b3b3b1ee81e88d0368a60e49cd8a79731b2d99c22a",
                        CSC311,
                    ),
                )
            ),
            Expected(
                (
                    Copy(
                        "test_data.csv",
                        35_859,
                        "8cf0b0e3ce05028ce2a4b434f99eab63629f9670c2d99ce87e5c848e723bd81c",
                        CSC311,
                    ),
                )
            ),
            Expected(
                (
                    Copy(
                        "question_meta.csv",
                        43_543,
                        "fcb795fd16cd653aad2a44db2f012da1dcb459cc1fc68bc544e17a0da08bec59",
                        CSC311,
                    ),
                )
            ),
            Expected(
                (
                    Copy(
                        "subject_meta.csv",
                        11_256,
                        "7d8dd800c85c43708b3c9bf10c307da02388a0102c2508b8d3bbd6344530ea58",
                        CSC311,
                    ),
                )
            ),
        ),
        (Counts(542, 1_774, 230, 67_317, "qcq", QCQ, ours=True),),
    ),
    "math2015": PublicData(
        "Math2015: Math1, Math2, FrcSub",
        "http://staff.ustc.edu.cn/~qiliuql/data/math2015.rar",
        "math2015",
        (
            Expected(
                (Copy("Math1/q.txt", 440, "783fa35ef1a4506083a429b5840d49b57eff2ecc8b5cd782065397e2cb92725d", ICD),)
            ),
            Expected(
                (
                    Copy(
                        "Math1/data.txt",
                        306_098,
                        "c16478cbabb6d9f67c4d234b3d496befa3130e8cf7bf7e91f2403099e1ff84c8",
                        ICD,
                    ),
                )
            ),
            Expected(
                (Copy("Math2/q.txt", 640, "44784864ddd6c132a488613275e7ab3a6b8f81fdae3507a0ddee5d0d7e47b195", ICD),)
            ),
            Expected(
                (
                    Copy(
                        "Math2/data.txt",
                        237_711,
                        "5b5f8657d64f84e3e5ba12bd93640eac2a508b47d11a923383ba480c15f7661e",
                        ICD,
                    ),
                )
            ),
            Expected(
                (Copy("FrcSub/q.txt", 320, "7d1622ba145b13aa7cf190ae5ad835268eaa0cbf5546a9a23b6625a8b7a764d4", ICD),)
            ),
            Expected(
                (
                    Copy(
                        "FrcSub/data.txt",
                        21_440,
                        "dfee50b6a6573ea06f269297618dfff16e84de5e85ab5a15b29929e243915250",
                        ICD,
                    ),
                )
            ),
        ),
        (Counts(8_656, 60, 35, 173_120, "qcq", QCQ, ours=True),),
        "research only, no commercial use",
        f"{ICD}/Math2015/TermsOfUse.txt",
    ),
    "icd-math-ec": PublicData(
        "Eedi's questions and knowledge codes, as ICD has them",
        f"{ICD}/math_ec",
        "icd",
        (
            Expected(
                (Copy("item.csv", 330_472, "58f1d1657cc554d64db27d22b3df790738699828b6c83449eb258ff18f84a1b8", ICD),)
            ),
            Expected(
                (Copy("skill.csv", 13_660, "4be42f9f4a4ff6adf8603f68ba14333fd6b3ef78a36a4764d5ae5d88fff01d7e", ICD),)
            ),
        ),
        (Counts(0, 27_613, 314, None, "qcq", QCQ, ours=True),),
    ),
    "akt-assistments-2009": PublicData(
        "ASSISTments 2009 with problems, as AKT has it",
        AKT,
        "akt",
        (
            Expected(
                (
                    Copy(
                        "assist2009_pid_test1.csv",
                        627_529,
                        "7a1cb2bc8045dbe1016253fdd1dc831b26580638e15a7b7b99c5d7c73d3c3915",
                        AKT,
                    ),
                )
            ),
            Expected(
                (
                    Copy(
                        "assist2009_pid_test2.csv",
                        630_410,
                        "547c17ad179e850edc7a8a8a1e74a2e371e5eaeafcb2c375b7ae53248e733db0",
                        AKT,
                    ),
                )
            ),
            Expected(
                (
                    Copy(
                        "assist2009_pid_test3.csv",
                        703_370,
                        "deb07f638f84e391c170ca3bdc87eb07001c8034e6f5b87817876378b20ff3ee",
                        AKT,
                    ),
                )
            ),
            Expected(
                (
                    Copy(
                        "assist2009_pid_test4.csv",
                        682_599,
                        "b6a8edbe565cfae154ccae93584d69d7bd99a8341ac3e481ea1c569b9239ecc3",
                        AKT,
                    ),
                )
            ),
            Expected(
                (
                    Copy(
                        "assist2009_pid_test5.csv",
                        701_760,
                        "be0b93bd7f94c4d489f2950eb818d2a6d96ebd5ddb2342ee152695d504c40fa5",
                        AKT,
                    ),
                )
            ),
        ),
        (Counts(4_150, 16_891, 110, 274_556, "qcq", QCQ, ours=True),),
        OF_ASSISTMENTS,
        TERMS,
    ),
    "s2kt-assistments-2009": PublicData(
        "ASSISTments 2009, as S2KT has it",
        S2KT,
        "s2kt",
        (
            Expected(
                (
                    Copy(
                        "train.txt", 2_149_640, "bf762cdbd27c66379c793148070db5b6f2846a9c42eb9d6be233f13c2fbbd29b", S2KT
                    ),
                )
            ),
            Expected(
                (Copy("dev.txt", 276_723, "6522f910621141a8788396bc2a31123f7396e3acf4cfc921d5ed512c23f6f1cc", S2KT),)
            ),
            Expected(
                (Copy("test.txt", 597_097, "899ca1aaeb1ef89d14e1cca02e98b34a799b373021a175530e3e219ea3d2a78f", S2KT),)
            ),
            Expected(
                (
                    Copy(
                        "problem_id_hashmap.json",
                        347_203,
                        "6915bd6fcc3ca8e40e2acd543732984f5da39eb3fe774bd30fc1dd3410b3df6b",
                        S2KT,
                    ),
                )
            ),
            Expected(
                (
                    Copy(
                        "skill_id_hashmap.json",
                        2_625,
                        "820740f7a0f12a262c6d29fa97c9632021fa8da9331da50393e44cc577d87b6f",
                        S2KT,
                    ),
                )
            ),
        ),
        (Counts(3_852, 17_737, 123, 282_619, "qcq", QCQ, ours=True),),
        OF_ASSISTMENTS,
        TERMS,
    ),
    "pebg-ednet": PublicData(
        "a part of EdNet, as PEBG has it",
        f"{PEBG}/ednet",
        "pebg",
        (
            Expected(
                (Copy("data.txt", 3_109_702, "306fc918081a0df6fa1260b4e5cac296fe7a8e4dcca5db0e2f43718eb0b2bf85", PEBG),)
            ),
            Expected(
                (
                    Copy(
                        "pro_id_dict.txt",
                        188_358,
                        "eee72e690889bd5bd5a5fed0e6e812da0fe64b1aba4e30c6ddf1637178899cbc",
                        PEBG,
                    ),
                )
            ),
            Expected(
                (
                    Copy(
                        "pro_skill_dict.txt",
                        248_565,
                        "2eac8cf2f4b5b1a1a00e6dfe31dc0c43376f469563d7b61004b7b1a0f933d033",
                        PEBG,
                    ),
                )
            ),
        ),
        (Counts(5_002, 12_372, 188, 222_141, "qcq", QCQ, ours=True),),
        "CC BY-NC 4.0",
        EDNET,
    ),
    "pebg-assistments-2009": PublicData(
        "the graph of ASSISTments 2009, as PEBG has it",
        f"{PEBG}/assist09",
        "pebg",
        (
            Expected(
                (
                    Copy(
                        "pro_id_dict.txt",
                        214_524,
                        "5350946284d6fe04a6e4cd18bacdae98307aaadd50acd3ebe5fb83acb4650fa5",
                        PEBG,
                    ),
                )
            ),
            Expected(
                (
                    Copy(
                        "skill_id_dict.txt",
                        1_955,
                        "81cfa6a508bfd56b99ba7336acf7fe97e268af697ab83eeb3260e7710b9a95c3",
                        PEBG,
                    ),
                )
            ),
            Expected(
                (
                    Copy(
                        "pro_skill_sparse.npz",
                        26_367,
                        "9896337b91e34a06fce20be1e07d1e216412719c728b9f092e606888ef6aa0e3",
                        PEBG,
                    ),
                )
            ),
        ),
        (Counts(0, 15_911, 123, None, "qcq", QCQ, ours=True),),
        OF_ASSISTMENTS,
        TERMS,
    ),
    "poj": PublicData(
        "POJ: submissions to Peking University's online judge",
        "https://drive.google.com/drive/folders/1LRljqWfODwTYRMPw6wEJ_mMt1KZ4xBDk",
        "poj",
        (_one(poj.LOG, poj.COLUMNS), _one(poj.TAGS, poj.TAGGED)),
        (Counts(22_916, 2_750, None, 996_240, "pyKT", PYKT),),
        note=f"the log has no concepts: {poj.TAGS}, with tags of the problems, is yours to write",
    ),
    "pykt": PublicData(
        "any folder that pyKT's data_preprocess.py made",
        "https://pykt-toolkit.readthedocs.io/en/latest/quick_start.html",
        "pykt",
        (
            Expected(
                (Copy("data.txt"), Copy("train_valid_sequences*.csv"), Copy("train_valid*.csv"), Copy("test*.csv"))
            ),
            _one("keyid2idx.json", needed=False),
        ),
        note="the licence is that of the data it was made from",
    ),
    "edmine": PublicData(
        "any folder of pyedmine's unified format",
        "https://github.com/ZhijieXiong/pyedmine",
        "edmine",
        (_one(edmine.RESPONSES), _one(edmine.MATRIX), _one("question_id_map.csv", needed=False)),
        note="the licence is that of the data it was made from",
    ),
    "edudata": PublicData(
        "any set in EduData's triple lines",
        EDUDATA,
        "edudata",
        (_one(icd.ITEMS, icd.COLUMNS),),
        note="the licence is that of the data it was made from; ktbd's assistment_2009_2010 names skills, no questions",
    ),
}


def named(name: str) -> dict[str, PublicData]:
    """The data set of this name, or those that the reader of this name reads.

    Raises
    ------
    UnknownNameError : there is none; the text has the nearest names.

    Examples
    --------
    >>> list(named("ednet")), list(named("junyi"))
    (['ednet'], ['junyi-2015', 'junyi-2019'])
    """
    if name in PUBLIC:
        return {name: PUBLIC[name]}
    found = {key: each for key, each in PUBLIC.items() if name in (each.reader, key.partition("-")[0])}
    if not found:
        raise UnknownNameError("public data set", name, PUBLIC)
    return found
