"""The page: complete and incomplete runs, hostile text, and a policy that lets nothing in or out."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.promotion import PromotionPlan, judge
from analysis.report import MOST_BYTES, ReportData, report_html, write_report

REFERENCE = hashlib.sha256(b"softmax").hexdigest()
CONVOLUTION = hashlib.sha256(b"convolution").hexdigest()
LINEAR = hashlib.sha256(b"linear").hexdigest()
SIZES = {"d32": 24_896, "d48": 55_776, "d80": 154_400}
LAW = {"E": 3.2, "A": 1.2, "alpha": 0.4, "n_unit": 1e3}
BASE = {size: LAW["E"] + LAW["A"] * (n / LAW["n_unit"]) ** -LAW["alpha"] for size, n in SIZES.items()}
GAIN = {REFERENCE: 0.0, CONVOLUTION: -0.052, LINEAR: -0.004}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;\x00\x1b[31m\u202egnp.exe\ud800" + "x" * 30_000

Row = dict[str, Any]


def _curve(candidate: str, size: str, seed: int, final: float) -> list[Row]:
    """Losses every 50 of 400 steps; linear attention sprints."""
    rng = np.random.default_rng([seed, len(size), candidate == LINEAR])
    speed = 90.0 if candidate == LINEAR else 130.0
    rows = []
    for step in range(50, 401, 50):
        loss = final + 2.4 * np.exp(-step / speed) - 2.4 * np.exp(-400 / speed) + 0.004 * rng.normal()
        rows.append({"candidate": candidate, "size": size, "seed": seed, "step": step, "val_loss": float(loss)})
    rows[-1]["val_loss"] = final
    return rows


def _run(candidate: str, size: str, seed: int, loss: float) -> Row:
    parameters = SIZES[size] + (128 if candidate == CONVOLUTION else 0)
    return {
        "candidate": candidate,
        "size": size,
        "seed": seed,
        "status": "completed",
        "val_loss": loss,
        "n_parameters": parameters,
        "flops": parameters * 6 * 400 * 512,
        "cpu_seconds": parameters / 8_000 * (1.12 if candidate == CONVOLUTION else 1.0),
        "seconds": parameters / 8_000,
        "peak_memory_bytes": 320 * 2**20,
    }


def _search() -> list[Row]:
    rng = np.random.default_rng(4)
    rows = [_run(REFERENCE, "d32", seed, BASE["d32"] + 0.01 * seed) for seed in (0, 1)]
    for number in range(1, 13):
        name = {3: LINEAR, 7: CONVOLUTION}.get(number, hashlib.sha256(str(number).encode()).hexdigest())
        for seed in (0, 1):
            loss = BASE["d32"] + 0.01 * seed + GAIN.get(name, 0.03 * float(rng.normal()))
            row = _run(name, "d32", seed, loss)
            if number in (5, 9):
                reason = "loss 1.2e5 at step 140" if number == 5 else "ZeroDivisionError: division by zero"
                row = {"candidate": name, "size": "d32", "seed": seed, "reason": reason}
                row["status"] = "diverged" if number == 5 else "crashed"
            rows.append(row)
    for size in ("d48", "d80"):
        rows += [_run(name, size, 0, BASE[size] + GAIN[name]) for name in (REFERENCE, CONVOLUTION, LINEAR)]
    return rows


def _lineage(search: list[Row]) -> list[Row]:
    names = list(dict.fromkeys(row["candidate"] for row in search))
    ideas = ["depthwise causal convolution of width 4 on q, k and v", "gate the values", "ALiBi-like distance bias"]
    rows: list[Row] = [
        {"id": REFERENCE, "parent": None, "iteration": 0, "fitness": 1.0, "status": "measured", "changes": "softmax"}
    ]
    for number, name in enumerate(names[1:], start=1):
        failed = next(
            (row["status"] for row in search if row["candidate"] == name and row["status"] != "completed"), None
        )
        rows.append(
            {
                "id": name,
                "parent": names[number // 2 if number != 7 else 3],
                "iteration": number,
                "fitness": None if failed else 1.0 - GAIN.get(name, 0.001 * number),
                "status": failed or "measured",
                "changes": ideas[0] if name == CONVOLUTION else ideas[1 + number % 2],
            }
        )
    rows.append({"id": "f" * 64, "parent": REFERENCE, "iteration": 13, "fitness": None, "status": "not evaluated"})
    return rows


def full_run() -> ReportData:
    """A finished run with one promoted and one undecided candidate, as the demo makes it."""
    plan = PromotionPlan(
        shortlist=(CONVOLUTION, LINEAR),
        reference=REFERENCE,
        sizes=tuple(SIZES),
        seeds=tuple(range(20_000, 20_006)),
    )
    rng = np.random.default_rng(3)
    confirmation, curves = [], []
    for size in SIZES:
        for seed in plan.seeds:
            seed_effect = 0.02 * float(rng.normal())
            for candidate in (REFERENCE, CONVOLUTION, LINEAR):
                noise = 0.0 if candidate == REFERENCE else 0.012 * float(rng.normal())
                loss = BASE[size] + seed_effect + GAIN[candidate] + noise
                confirmation.append(_run(candidate, size, seed, loss))
                curves += [{**row, "purpose": "confirmation"} for row in _curve(candidate, size, seed, loss)]
    search = _search()
    return ReportData(
        title="Evolving the coefficients of attention",
        name="demo",
        framework="coefficient_dynamics",
        reference=REFERENCE,
        command="evoscale evolve coefficient_dynamics --config experiments/demo.yaml --name demo --seed 1",
        proposer="the catalogue of 24 code operators",
        uses_llm=False,
        created="2025-11-23T22:40:00Z",
        manifest={
            "environment": {"python": "3.11.7", "packages": {"torch": "2.13.0", "evoscale": "0.1.0"}, "git": None},
            "corpus": {"name": "stdlib", "hash": "c0ffee" * 10, "tokenizer_hash": "7ea" * 20, "vocab_size": 512},
            "config": {"seed": 1, "iterations": 14},
        },
        cost=[
            {"what": "CPU time of all runs", "value": 412.7, "unit": "s"},
            {"what": "prompt tokens", "value": None, "unit": "tokens", "note": "the catalogue has no tokens"},
            {"what": "runs", "value": 86, "unit": ""},
        ],
        sizes=[
            {"name": name, "d_model": int(name[1:]), "n_layers": 2, "n_parameters": n, "steps": 400}
            for name, n in SIZES.items()
        ],
        verdicts=[verdict.to_json() for verdict in judge(plan, confirmation)],
        plan=plan.to_json(),
        seal_opened="2025-11-23T22:46:10Z",
        curves=curves,
        confirmation=confirmation,
        search=search,
        scaling=[
            {
                "arm": arm,
                **LAW,
                "E": LAW["E"] + GAIN[arm],
                "slope": -0.03,
                "exact": True,
                "points": [[row["n_parameters"], row["val_loss"]] for row in confirmation if row["candidate"] == arm],
            }
            for arm in (REFERENCE, CONVOLUTION)
        ],
        lineage=_lineage(search),
        winner_block="class Dynamics(nn.Module):\n    pass\n",
        winner_diff="--- reference\n+++ candidate\n@@ -1,2 +1,2 @@\n class Dynamics:\n-    a = b < c\n+    a = b > c\n",
        rejected=[
            {"iteration": 2, "candidate": None, "stage": "unparsable", "reason": "no block found in the reply"},
            {"iteration": 4, "candidate": "9" * 64, "stage": "causality", "reason": "output 12 depends on input 13"},
        ],
        noise_floor=[{"size": "d32", "value": 0.02, "note": "spread of the reference over seeds"}],
        controls=[
            {"name": "identical block", "expected": "same function", "found": "same function", "holds": True},
            {"name": "future leak", "expected": "rejected", "found": None, "holds": None},
        ],
        notes=["Two cores, no GPU."],
    )


def slim(data: ReportData) -> ReportData:
    """Without the parts whose figures take long to draw."""
    return dataclasses.replace(data, curves=(), scaling=(), search=(), lineage=())


EMPTY = ReportData(title="Nothing yet", name="r", framework="matrix_mixer", reference=REFERENCE)


class Page(HTMLParser):
    """Elements, attributes and visible text of a page; every element must be closed in order."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)

    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def page_of(data: ReportData) -> Page:
    page = Page(report_html(data))
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def full() -> ReportData:
    return full_run()


@pytest.fixture(scope="module")
def full_text(full: ReportData) -> str:
    return report_html(full)


def test_the_verdict_comes_first_in_words(full: ReportData, full_text: str) -> None:
    words = Page(full_text).words()
    decisions = [row["decision"] for row in full.verdicts]
    assert decisions[0] == "promoted"
    assert decisions[1] != "promoted"
    assert "1 of 2 candidates is better than the reference, confirmed on fresh seeds." in words
    positions = [words.index(row["sentence"]) for row in full.verdicts]
    assert positions == sorted(positions)
    assert positions[-1] < words.index("Learning curves Lines are means")
    assert "No language model took part." in words


def test_every_part_is_there(full: ReportData, full_text: str) -> None:
    page = Page(full_text)
    ids = [attributes.get("id") for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids)), "ids are unique on the page, those inside figures too"
    sections = (
        "verdict evidence curves scaling lineage change measured cost-loss rejected controls cost reproduce notes"
    )
    assert set(sections.split()) <= set(ids)
    for _, attributes in page.tags:
        target = attributes.get("href") or ""
        if target.startswith("#"):
            assert target[1:] in ids, target
    words = page.words()
    for expected in (
        full.command,
        REFERENCE,
        CONVOLUTION,
        "depthwise causal convolution",
        "With 3 sizes a curve of three parameters passes through",
        "output 12 depends on input 13",
        "future leak rejected not recorded not run",
        "prompt tokens not reported tokens",
        "spread of the reference over seeds",
        "Two cores, no GPU.",
        "6 paired seeds of the confirmation.",
    ):
        assert expected is not None
        assert expected in words
    assert page.count("svg") == 1 + 2 + 3 + 1 + 3 + 1


def test_not_evaluated_looks_different_from_failed(full_text: str) -> None:
    row = full_text[full_text.index(hashlib.sha256(b"5").hexdigest()[:10]) :]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row[row.index("<td") :])
    assert '<span class="failed">diverged (2 of 2)</span>' in cells[0]
    assert cells[1] == cells[2] == '<span class="absent">not evaluated</span>'


def test_nothing_enters_or_leaves_the_page(full_text: str) -> None:
    page = Page(full_text)
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", full_text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    for tag, attributes in page.tags:
        assert tag not in ("img", "link", "iframe", "object", "base", "form", "image", "foreignobject"), tag
        assert "style" not in attributes, "inline styles would be refused by the policy"
        assert not any(name.startswith("on") for name in attributes)
        for name in ("href", "src", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:text/csv;", "data:application/json;"))
    assert "url(http" not in full_text


def test_the_same_data_gives_the_same_bytes(full: ReportData, full_text: str) -> None:
    assert report_html(full_run()) == full_text


def test_the_data_of_the_figures_can_be_taken_along(full: ReportData, full_text: str) -> None:
    links = {
        attributes["download"]: attributes["href"]
        for tag, attributes in Page(full_text).tags
        if tag == "a" and "download" in attributes
    }
    assert {"paired_differences.csv", "curves_d32.csv", "scaling.csv", "lineage.csv", "manifest.json"} <= set(links)
    for name, href in links.items():
        assert href is not None
        assert base64.b64decode(href.split("base64,")[1]), name
    text = base64.b64decode(str(links["paired_differences.csv"]).split("base64,")[1]).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 2 * 3 * 6
    mean = np.mean([float(row["difference"]) for row in rows if row["candidate"] == CONVOLUTION])
    assert mean == pytest.approx(full.verdicts[0]["evidence"]["mean_difference"])


@pytest.mark.parametrize(
    ("state", "headline"),
    [
        ("finished", "No candidate was confirmed, so nothing is promoted."),
        ("interrupted", "No verdict: the run was interrupted before its confirmation was complete."),
        ("running", "No verdict yet: the run is still going."),
    ],
)
def test_a_run_without_candidates(state: str, headline: str) -> None:
    words = page_of(dataclasses.replace(EMPTY, state=state)).words()
    assert headline in words
    assert "Nothing was measured." in words
    assert "No learning curve was recorded." in words
    assert "No cost was recorded." in words
    assert "nan" not in words.lower().split()


def test_an_interrupted_confirmation_names_what_was_to_be_judged(full: ReportData) -> None:
    data = dataclasses.replace(
        full, verdicts=(), confirmation=full.confirmation[:7], curves=(), scaling=(), state="interrupted"
    )
    words = page_of(data).words()
    assert "No verdict: the run was interrupted" in words
    assert words.count("its confirmation is not complete") == 2
    assert "Declared before the sealed test split was opened" in words


@pytest.mark.parametrize("decision", ["not promoted", "undecided", "rejected"])
def test_nobody_promoted(full: ReportData, decision: str) -> None:
    verdicts = [{**row, "decision": decision, "sentence": f"Because {decision}."} for row in full.verdicts]
    words = page_of(dataclasses.replace(slim(full), verdicts=verdicts)).words()
    if decision == "undecided":
        assert "No candidate is shown to be better than the reference; 2 of 2 are undecided." in words
    else:
        assert "No candidate is better than the reference." in words
    assert f"Because {decision}." in words


def test_a_verdict_without_numbers(full: ReportData) -> None:
    """A guard rejects before anything is measured; its evidence is full of None."""
    evidence = dict.fromkeys(full.verdicts[0]["evidence"]) | {"n_pairs": 0, "per_size": []}
    verdict = {
        "candidate": CONVOLUTION,
        "decision": "rejected",
        "sentence": "Rejected: it leaks.",
        "evidence": evidence,
    }
    words = page_of(dataclasses.replace(slim(full), verdicts=[verdict], confirmation=())).words()
    assert "Rejected: it leaks." in words
    assert "No complete pair of confirmation runs was recorded" in words


def _poisoned(value: Any) -> Any:
    """Every text in `value`, keys apart, replaced by a hostile one."""
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, dict):
        return {key: _poisoned(inner) for key, inner in value.items()}
    return [_poisoned(inner) for inner in value] if isinstance(value, list | tuple) else value


def test_hostile_text_stays_text(full: ReportData, tmp_path: Path) -> None:
    fields = {field.name: getattr(full, field.name) for field in dataclasses.fields(full)}
    state = fields.pop("state")
    path = write_report(ReportData(**_poisoned(fields), state=state), tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < MOST_BYTES
    page = Page(text)
    assert page.open == []
    assert page.count("script") == 1
    assert page.count("img") == 0
    assert "alert(1)" in page.words()
    assert not any(character in text for character in "\x00\x1b\u202e")


def test_hostile_names_beside_honest_numbers(full: ReportData) -> None:
    """Names that break mathematical text, hide from legends, or run from right to left still get a figure."""
    names = {CONVOLUTION: "_$x_{$\\frac", LINEAR: "مرحبا <b>"}

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: renamed(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [renamed(inner) for inner in value]
        return names.get(value, value) if isinstance(value, str) else value

    fields = {field.name: getattr(full, field.name) for field in dataclasses.fields(full)}
    page = page_of(ReportData(**renamed(fields)))
    assert page.count("svg") == 11
    assert "_$x_{$\\frac" in page.words()


def test_missing_and_infinite_numbers_are_not_drawn_or_counted(full: ReportData) -> None:
    broken = [
        {**row, "val_loss": value}
        for row, value in zip(full.search, [float("nan"), None, float("inf")] * 40, strict=False)
    ]
    curves = [{**row, "val_loss": None} for row in full.curves]
    words = page_of(dataclasses.replace(slim(full), search=broken, curves=curves)).words()
    assert "No learning curve was recorded." in words
    assert "nan" not in words.lower().split()


def test_a_very_large_run_still_fits(full: ReportData, tmp_path: Path) -> None:
    search = [
        {**row, "candidate": f"{number:064x}", "reason": "why " * 200}
        for number in range(600)
        for row in full.search[:6]
    ]
    lineage = [
        {"id": f"{n:064x}", "parent": f"{n - 1:064x}", "iteration": n, "fitness": 1.0, "changes": "more " * 100}
        for n in range(3_000)
    ]
    data = dataclasses.replace(
        slim(full),
        search=search,
        lineage=lineage,
        winner=f"{2_999:064x}",
        rejected=list(full.rejected) * 2_000,
        winner_block="x = 1\n" * 100_000,
        winner_diff="+x\n" * 100_000,
        notes=["n" * 50_000] * 10,
    )
    path = write_report(data, tmp_path / "report.html")
    assert path.stat().st_size < MOST_BYTES
    words = Page(path.read_text(encoding="utf-8")).words()
    assert "The last 40 of 3,000 steps to" in words
    assert "Drawn: 210 of 3,000." in words
    assert "The first 500 of 4,000 are shown; the ledger has all of them." in words


def test_an_old_report_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    assert write_report(EMPTY, path) == path
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_state_is_refused() -> None:
    with pytest.raises(ValueError, match="state 'done' is not one of finished, interrupted, running"):
        dataclasses.replace(EMPTY, state="done")
