"""Merge evolutions with real models: small experts, real decoding, sealed report, interruption and resume."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from data.corpus_error import CorpusError
from evolution.ledger import Ledger, LedgerError
from evolution.merging.benchmarks import BenchmarkConfig, answer_problems, cut_at_stop, prompt_text, summary
from evolution.merging.candidate import CandidateModels, MergeCandidate, copy_of, load_candidate
from evolution.merging.dataflow import Path as Flow
from evolution.merging.dataflow import dataflow_model, naive_dataflow_logits
from evolution.merging.embedded_experts import ExpertsConfig, experts_folder
from evolution.merging.evaluation import proxy_scores
from evolution.merging.evolution_config import EvolutionConfig, load_evolution_config
from evolution.merging.pipeline import evolve_merge, problem_splits
from evolution.merging.recipe import parse_recipe
from evolution.merging.resident_model import SourceModels
from experiments.cli import app
from frameworks.merging.merge_error import MergeError

ROOT = Path(__file__).parents[3]
SKILLS = ("total", "largest", "smallest")


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experts that were hardly trained: they answer, mostly wrongly."""
    config = ExpertsConfig(width=16, layers=3, heads=2, batch=16, base_steps=4, expert_steps=4)
    return experts_folder(config, tmp_path_factory.mktemp("experts"))


@pytest.fixture(scope="module")
def sources(experts: Path) -> SourceModels:
    return SourceModels([str(experts / name) for name in ("base", *SKILLS)])


def settings(experts: Path, **more: Any) -> dict[str, Any]:
    return {
        "base_model": str(experts / "base"),
        "models": [str(experts / skill) for skill in SKILLS],
        "max_benchmark_samples": 30,
        "report_samples": 30,
        "num_generations": 2,
        "dfs_generations": 2,
        "population_size": 4,
        "block": 10,
        "use_real_fitness": False,
        "racing": False,
    } | more


def test_experts_are_trained_once_and_answer(experts: Path, sources: SourceModels) -> None:
    config = ExpertsConfig(width=16, layers=3, heads=2, batch=16, base_steps=4, expert_steps=4)
    before = (experts / "base" / "model.safetensors").stat().st_mtime_ns
    assert experts_folder(config, experts.parent) == experts
    assert (experts / "base" / "model.safetensors").stat().st_mtime_ns == before
    problems = problem_splits(EvolutionConfig(max_benchmark_samples=9)).evolve
    asked = BenchmarkConfig(benchmark_name="arithmetic", batch_size=4, max_new_tokens=3, shots=0)
    model, tokenizer = sources.load(sources.names[0]), sources.tokenizer()
    answers = answer_problems(model, tokenizer, problems, asked)
    alone = answer_problems(model, tokenizer, problems, BenchmarkConfig(batch_size=1, max_new_tokens=3, shots=0))
    assert [answer.text for answer in answers] == [answer.text for answer in alone]
    assert summary(answers)["total"] == 9
    assert all(0 <= score <= 1 for score in proxy_scores(tokenizer, 4)(model, problems))


def test_a_resident_model_is_written_in_place(sources: SourceModels) -> None:
    model = sources.load(sources.names[0])
    address = model.model.layers[0].mlp.up_proj.weight.data_ptr()
    for name in sources.names[1:]:
        sources.write(copy_of(name), model)
        expected = sources.load(name).state_dict()
        assert all(torch.equal(tensor, expected[key]) for key, tensor in model.state_dict().items())
    assert model.model.layers[0].mlp.up_proj.weight.data_ptr() == address


def test_a_data_flow_equals_its_oracle_shares_weights_and_generates(sources: SourceModels) -> None:
    models = [sources.load(name) for name in sources.names[:3]]
    path = Flow(layers=(0, 4, 7, 4, 1, 2), scales=(1.0, 0.9, 1.2, 0.8, 1.1, 1.05))
    flow = dataflow_model(models, path)
    tokens = torch.arange(12).reshape(2, 6) % 14
    with torch.no_grad():
        torch.testing.assert_close(flow(input_ids=tokens).logits, naive_dataflow_logits(models, path, tokens))
        straight = dataflow_model(models, Flow(layers=(0, 1, 2), scales=(1.0, 1.0, 1.0)))
        torch.testing.assert_close(straight(input_ids=tokens).logits, models[0](input_ids=tokens).logits)
        # the key-value cache of a path in which one layer stands twice
        cached = flow.generate(tokens, max_new_tokens=5, do_sample=False, eos_token_id=None, pad_token_id=14)
        plain = tokens
        for _ in range(5):
            following = naive_dataflow_logits(models, path, plain)[:, -1].argmax(-1, keepdim=True)
            plain = torch.cat([plain, following], 1)
        assert torch.equal(cached, plain)
    own = {tensor.data_ptr() for model in models for tensor in model.parameters()}
    assert {tensor.data_ptr() for tensor in flow.parameters()} <= own
    assert models[0].config.num_hidden_layers == 3
    assert models[0].model.layers[1].self_attn.layer_idx == 1


def test_gradients_flow_along_a_path_as_in_the_oracle(sources: SourceModels) -> None:
    models = [sources.load(name) for name in sources.names[:2]]
    path = Flow(layers=(0, 4, 4, 2), scales=(1.0, 0.7, 1.3, 0.9))
    tokens = torch.arange(10).reshape(2, 5)
    weights = [models[1].model.layers[1].mlp.up_proj.weight, models[0].model.embed_tokens.weight]
    fast = torch.autograd.grad(dataflow_model(models, path)(input_ids=tokens).logits.square().sum(), weights)
    slow = torch.autograd.grad(naive_dataflow_logits(models, path, tokens).square().sum(), weights)
    for one, other in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_wrong_path_is_refused(sources: SourceModels) -> None:
    models = [sources.load(sources.names[0])]
    with pytest.raises(MergeError, match="the path has layer 9; the models have 3 layers"):
        dataflow_model(models, Flow(layers=(0, 9), scales=(1.0, 1.0)))
    with pytest.raises(MergeError, match="2 layers and 1 scales"):
        dataflow_model(models, Flow(layers=(0, 1), scales=(1.0,)))
    with pytest.raises(MergeError, match=r"has no model\.layers"):
        dataflow_model([torch.nn.Linear(2, 2)], Flow(layers=(0,), scales=(1.0,)))


@pytest.mark.parametrize(
    "more",
    [
        {"use_hybrid_ps_dfs": True, "groups": 3},
        pytest.param({"space": "layer_gate", "use_real_fitness": True, "racing": True}, marks=pytest.mark.slow),
        pytest.param({"space": "dataflow", "w_mode": "full", "repetitions": 2}, marks=pytest.mark.slow),
        pytest.param({"use_cmaes": False, "coefficients": "simplex", "merge_method": "ties"}, marks=pytest.mark.slow),
        pytest.param({"multi_objective": True, "population_size": 4}, marks=pytest.mark.slow),
    ],
)
def test_every_mode_runs_to_a_report_and_a_second_run_computes_nothing(
    more: dict[str, Any], experts: Path, tmp_path: Path
) -> None:
    config = EvolutionConfig(**settings(experts, **more))
    result = evolve_merge(config, tmp_path)
    assert result.computed > 0
    report = result.metrics["report"]
    assert report["problems"] == 30
    assert {"source 1", "uniform soup", "default ties", "random search", report["champion"]} <= set(report["arms"])
    assert report["decision"] in ("promoted", "not promoted")
    for name in ("fitness_improvement", "baseline_fitness", "ps_mean_fitness", "champion_fitness", "n_ps_candidates"):
        assert name in result.metrics
    assert load_candidate(tmp_path / "merge" / "winner.yaml") == result.champion
    assert json.loads((tmp_path / "merge" / "metrics.json").read_text()) == json.loads(json.dumps(result.metrics))
    again = evolve_merge(config, tmp_path)
    assert again.computed == 0
    assert again.metrics == result.metrics
    with Ledger.open(tmp_path / "merge" / "ledger.sqlite", read_only=True) as ledger:
        assert ledger.integrity() == []
        assert len(ledger.events("seal_opened")) == 1
    with pytest.raises(MergeError, match="started with another seed"):
        evolve_merge(EvolutionConfig(**settings(experts, **more, seed=1)), tmp_path)


@pytest.mark.slow
def test_a_killed_run_goes_on_and_repeats_no_evaluation(experts: Path, tmp_path: Path) -> None:
    config = EvolutionConfig(**settings(experts, num_generations=6, random_search=False))
    file = tmp_path / "merge" / "ledger.sqlite"
    # a fork has everything imported, so that the kill falls into the search and not into an import
    worker = os.fork()
    if worker == 0:
        try:
            evolve_merge(config, tmp_path)
        finally:
            os._exit(0)
    deadline = time.monotonic() + 300
    done = 0
    while done < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
        if file.exists():
            try:
                with Ledger.open(file, read_only=True) as ledger:
                    done = len(ledger.events("run"))
            except LedgerError:  # it is being made
                continue
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    with Ledger.open(file, read_only=True) as ledger:
        before = {event.key for event in ledger.events("run")}
        assert not ledger.events("run_finished")
    result = evolve_merge(config, tmp_path)
    with Ledger.open(file, read_only=True) as ledger:
        after = [event.key for event in ledger.events("run")]
    assert len(before) >= 6
    assert before <= set(after)
    assert len(after) == len(set(after)) == len(before) + result.computed


def test_a_failing_merge_ranks_last(experts: Path, sources: SourceModels) -> None:
    models = CandidateModels(sources)
    bad = parse_recipe(
        {"merge_method": "linear", "models": [{"model": n, "parameters": {"weight": 0.0}} for n in sources.names]}, "t"
    )
    with pytest.raises(MergeError, match="sum to 0"):
        models.model(MergeCandidate(recipes=(bad,)))
    good = MergeCandidate(recipes=(copy_of(sources.names[1]),))
    expected = sources.load(sources.names[1]).state_dict()
    assert all(torch.equal(t, expected[key]) for key, t in models.model(good).state_dict().items())


@pytest.mark.parametrize(
    ("lines", "error", "parts"),
    [
        ("num_generatoins: 3", MergeError, ["unknown key 'num_generatoins'", "'num_generations'"]),
        ("num_generations: 0", MergeError, ["num_generations", "greater than or equal to 1", "got 0"]),
        ("merge_method: tis", MergeError, ["unknown merge_method 'tis'", "'ties'"]),
        ("models: [a]", MergeError, ["at least two"]),
        ("benchmark_name: gsm8k", MergeError, ["arithmetic only"]),
        ("use_real_fitness: false", MergeError, ["racing"]),
        ("name: a/b", MergeError, ["cannot name a folder"]),
        ("models: [/absent/a, /absent/b]\nmerge_method: linear", MergeError, ["/absent/a", "no such folder"]),
        (
            "models: [/absent/a, /absent/b]\nmerge_method: linear\nbenchmark_name: mgsm\nevolve: gsm8k:test\n"
            "report: mgsm:ja\ndata_folder: ../shared/data",
            CorpusError,
            ["share", "MGSM is GSM8K's test rows 0 to 249"],
        ),
    ],
)
def test_a_wrong_evolution_is_refused_before_anything_is_written(
    lines: str, error: type[Exception], parts: list[str], tmp_path: Path
) -> None:
    if "../shared/data" in lines:
        data = ROOT / ".." / "shared" / "data"
        if not data.is_dir():
            pytest.skip("no ../shared/data beside the checkout")
        lines = lines.replace("../shared/data", str(data))
    config = tmp_path / "config.yaml"
    config.write_text(lines)
    done = CliRunner().invoke(app, ["merge", str(config), "--evolve", "--runs", str(tmp_path / "runs")])
    assert isinstance(done.exception, error), done.exception
    for part in parts:
        assert part in str(done.exception)
    assert list(tmp_path.iterdir()) == [config]


def test_the_shipped_configurations_are_valid() -> None:
    for path in sorted((ROOT / "experiments" / "06_evomerge").glob("*.yaml")):
        load_evolution_config(path, ["num_generations=3"], name="other", seed=4)


def test_prompts_and_stops_are_those_of_the_harness() -> None:
    from data.math_problems import MathProblem

    def problem(question: str, language: str = "en") -> MathProblem:
        return MathProblem(question=question, answer="2", item=question, source="t", solution="", language=language)

    text = prompt_text(problem("Two?"), [problem("一?", "zh")])
    assert text == "Question: 一?\nAnswer: 答案是 2。\n\nQuestion: Two?\nAnswer:"
    assert cut_at_stop(" 18\n\nQuestion: next </s>") == " 18\n\n"


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({"benchmark_name": "gsm8"}, "did you mean 'gsm8k'"),
        ({"temperature": 0.7}, "must be 0"),
        ({"beams": 0}, "beams is 0"),
        ({"max_samples": 0}, "max_samples is 0"),
    ],
)
def test_wrong_benchmark_settings_are_refused(more: dict[str, Any], part: str) -> None:
    with pytest.raises(MergeError, match=part):
        BenchmarkConfig(**more)
