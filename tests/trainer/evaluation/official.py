"""Small files in the official formats of the question suites, with pictures of noise."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# Words of the questions below, for models that know no others.
WORDS = ("A", "B", "C", "D", "circle", "square", "Hint", "with", "option", "s", "letter", "from")
WORDS += ("given", "choices", "directly", "the", "question", "using", "single", "word", "phrase")
WORDS += ("'", "is", "it", "there", "many", "how", "which", "shape", "what")
COUNT = 6  # of pictures
MCQ = ("circle", "square", "red", "blue")


def png(number: int) -> bytes:
    rng = np.random.default_rng([number, 7])
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def write_pictures(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(number))


def write_tsv(path: Path, rows: list[dict[str, Any]]) -> Path:
    """As pandas writes them: what is missing is empty, quotes only where they are needed."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def encoded(number: int) -> str:
    return base64.b64encode(png(number)).decode()


def mmbench(rotated: bool = True) -> list[dict[str, Any]]:
    """Four questions of two to four options; with VLMEvalKit's rotations, whose picture is named
    by the first one's index."""
    rows = []
    for number, (count, right) in enumerate([(4, 1), (3, 0), (2, 1), (4, 3)]):
        choices = MCQ[:count]
        for turn in range(count if rotated else 1):
            turned = choices[turn:] + choices[:turn]
            index = 10 + number + turn * 1_000_000
            rows.append(
                {
                    "index": index,
                    # Lines and quotes in a field, as the files have them.
                    "question": 'which shape is\n"it" ?' if number == 1 else "which shape is it ?",
                    "hint": "it is red" if number == 0 else "",
                    **dict(zip("ABCD", turned, strict=False)),
                    "answer": "ABCD"[turned.index(choices[right])],
                    "category": ("counting", "ocr")[number % 2],
                    "l2-category": ("perception", "reasoning")[number // 2],
                    "split": "dev",
                    "image": encoded(number) if not turn else str(10 + number),
                }
            )
    return rows


def mmmu_tsv() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number in range(4):
        rows.append(
            {
                "index": number,
                "question": "how many ?",
                **dict(zip("ABCD", MCQ, strict=True)),
                "answer": "ABCD"[number],
                "category": ("Art", "Art_Theory")[number % 2],
                "l2-category": "Art_and_Design",
                "split": "validation",
                "image": encoded(number),
            }
        )
    rows.append({**rows[0], "index": 4, "split": "dev"})
    several = str([encoded(4), encoded(5)])
    rows.append({**rows[0], "index": 5, "image": several, "answer": "B"})
    open_one = {**rows[0], "index": 6, "answer": "['two', '2']"}
    rows.append({k: v for k, v in open_one.items() if k not in tuple("ABCD")})
    return rows


def seedbench_json() -> dict[str, Any]:
    questions = [
        {
            "answer": "ABCD"[number % 4],
            **{f"choice_{'abcd'[i]}": one for i, one in enumerate(MCQ)},
            "data_id": f"picture{number}",
            "data_type": "image" if number < 5 else "video",
            "question": "what is there ?",
            "question_id": f"{100 + number}",
            "question_type_id": number % 2 + 1,
        }
        for number in range(6)
    ]
    names = {"Scene Understanding": 1, "Instance Identity": 2}
    return {"question_type": names, "questions": questions}


def hallusionbench_json() -> list[dict[str, Any]]:
    """One set of two figures and two questions, another of one, and a question without a figure."""
    rows = []
    places = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0)]
    for place, (of, figure, question) in enumerate(places):
        rows.append(
            {
                "category": "VD" if of == 0 else "VS",
                "subcategory": "figure" if of == 0 else "chart",
                "visual_input": "1",
                "set_id": str(of),
                "figure_id": str(figure),
                "question_id": str(question),
                "question": "is it a circle ?",
                "gt_answer": str(place % 2),
                "gt_answer_details": "-",
                "filename": f"./hallusion_bench/VD/figure/{of}_{figure}.png",
            }
        )
    rows.append({**rows[-1], "visual_input": "0", "figure_id": "9", "filename": None})
    return rows


def hallusionbench_tsv() -> list[dict[str, Any]]:
    return [
        {
            "index": f"hb_{row['category']}_{row['subcategory']}_{row['set_id']}"
            f"_{row['figure_id']}_{row['question_id']}",
            "question": row["question"],
            "answer": ("No", "Yes")[int(row["gt_answer"])],
            "category": row["category"],
            "l2-category": row["subcategory"],
            "image": encoded(int(row["figure_id"])),
        }
        for row in hallusionbench_json()[:-1]
    ]


def pope_jsonl(count: int = 4) -> list[dict[str, Any]]:
    texts = ("is there a circle ?", "is there a square ?", "is there a red circle ?")
    return [
        {
            "question_id": 3 * i + j,
            "image": f"{i}.png",
            "text": text,
            "label": "no" if j == 1 else "yes",
        }
        for i in range(count)
        for j, text in enumerate(texts)
    ]


def write_suite(suite: str, folder: Path) -> tuple[Path, Path]:
    """A file of the suite, in the format that needs no picture folder where there is one, and the
    folder of its pictures."""
    pictures = folder / "pictures"
    file = folder / f"{suite}.json"
    if suite == "mmbench":
        file = write_tsv(folder / "MMBench_DEV_EN.tsv", mmbench())
    elif suite == "mmmu":
        file = write_tsv(folder / "MMMU_DEV_VAL.tsv", mmmu_tsv())
    elif suite == "seedbench":
        file.write_text(json.dumps(seedbench_json()), encoding="utf-8")
        write_pictures(pictures, [f"picture{i}" for i in range(5)])
    elif suite == "hallusionbench":
        file.write_text(json.dumps(hallusionbench_json()), encoding="utf-8")
        write_pictures(pictures, [f"VD/figure/{n}.png" for n in ("0_0", "0_1", "1_0")])
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in pope_jsonl()), encoding="utf-8")
        write_pictures(pictures, [f"{i}.png" for i in range(4)])
    pictures.mkdir(exist_ok=True)
    return file, pictures
