"""The graders that compare: numbers, texts, retrieved documents. And how the run file names any of them."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.events import Json, JsonObject, SpanKind, SpanRecorded
from leyden.reward.adapters import function_runner
from leyden.reward.core.failures import FailureKind
from leyden.reward.functions import RolloutView, TaskView
from leyden.reward.graders import GRADERS, BrokenReferenceError
from leyden.reward.graders.numerals import boxed, numbers_in
from leyden.reward.settings import RewardSection
from leyden.settings import RunFileError, load_section
from unit.reward.reward_builders import ROLLOUT, a_span


def a_view(output: Json, metadata: JsonObject, *spans: SpanRecorded) -> RolloutView:
    return RolloutView(ROLLOUT, 0, TaskView(metadata=metadata), (), spans, output, "succeeded", None)


def graded(grader: str, output: Json, metadata: JsonObject, *spans: SpanRecorded, **parameters: Any) -> Any:
    return GRADERS[grader].model_validate(parameters)(a_view(output, metadata, *spans))


@pytest.mark.parametrize("grader", list(GRADERS))
def test_without_a_reference_there_is_no_opinion(grader: str) -> None:
    assert graded(grader, "4", {}) is None


@pytest.mark.parametrize(
    ("given", "answer", "expected"),
    [
        ("The total is $1,234.50.", 1234.5, 1.0),
        ("3 apples and 4 pears make 7 fruits", 7, 1.0),
        (r"So \boxed{\frac{3}{4}}, which beats 1/2", 0.75, 1.0),
        (r"\boxed{12\%} of 200", "12%", 1.0),
        ("50%", 0.5, 1.0),
        ("50%", 50, 1.0),
        ("0.5", "50%", 1.0),
        ("5%", 0.5, 0.0),
        ("−5", -5, 1.0),
        (r"1.5 \times 10^{3}", 1500, 1.0),
        ("1{,}234", 1234, 1.0),
        (7.0000001, 7, 1.0),
        (7.1, 7, 0.0),
        ("no number at all", 7, 0.0),
        (None, 7, 0.0),
        (True, 1, 0.0),
        ("1e999", 7, 0.0),
        ({"result": 7}, 7, 1.0),
        ("9" * 5000, 9, 0.0),
    ],
)
def test_a_number_counts_however_it_is_written(given: Json, answer: Json, expected: float) -> None:
    assert graded("numeric", given, {"answer": answer}) == expected


@pytest.mark.parametrize(
    ("given", "parameters", "expected"),
    [
        ("first 7 then 8", {"take": "first"}, 1.0),
        ("7 and 8", {"take": "only"}, 0.0),
        ("7", {"take": "boxed"}, 0.0),
        ("7.4", {"tolerance": 0.1}, 1.0),
        ("0.007 km", {"units": {"km": 1000, "m": 1}}, 1.0),
        ("7 m", {"units": {"km": 1000, "m": 1}}, 1.0),
        ("7 miles", {"units": {"km": 1000, "m": 1}}, 0.0),
        ("700%", {"percent": "fraction"}, 1.0),
        ("7%", {"percent": "fraction"}, 0.0),
    ],
)
def test_numeric_has_parameters(given: str, parameters: dict[str, Any], expected: float) -> None:
    assert graded("numeric", given, {"answer": 7}, **parameters) == expected


@pytest.mark.parametrize("answer", ["seven", True, [], "1/0", {"a": None}])
def test_a_reference_that_is_no_number_is_the_graders_failure(answer: Json) -> None:
    with pytest.raises(BrokenReferenceError):
        graded("numeric", "7", {"answer": answer})


@given(st.floats(-1e15, 1e15, allow_nan=False), st.sampled_from(["{:.6f}", "{:,.6f}", "{!r}", "${:,.6f}", "{:.6e}"]))
def test_a_written_number_is_read_back(value: float, form: str) -> None:
    [found] = numbers_in(f"it is {form.format(value)}")
    assert abs(found.value - value) <= 1e-6 * max(1.0, abs(value))


@given(st.text(alphabet="\\boxedfrac{}$1,./%-+ e", max_size=200))
def test_any_text_is_read_without_an_error(text: str) -> None:
    boxed(text)
    assert all(number.value == number.value for number in numbers_in(text))


def test_exact_match_can_look_elsewhere() -> None:
    metadata: JsonObject = {"answers": ["no", "Yes "]}
    assert graded("exact_match", {"final": "yes"}, metadata, answer="metadata.answers.1", given="output.final") == 1.0


def retrieval(n: int, **attributes: Json) -> SpanRecorded:
    return a_span(n, n, SpanKind.RETRIEVAL, attributes=attributes)


SPANS = (
    retrieval(1, **{"gen_ai.retrieval.documents": '[{"id": "a", "score": 0.9}, {"id": "b"}]'}),
    retrieval(2, **{"retrieval.documents.1.document.id": "c", "retrieval.documents.0.document.id": "a"}),
)


@pytest.mark.parametrize(
    ("metric", "k", "expected"),
    [("precision", None, 2 / 3), ("recall", None, 1.0), ("f1", None, 0.8), ("recall", 2, 0.5), ("precision", 1, 1.0)],
)
def test_documents_of_retrieval_spans_are_held_against_the_reference(
    metric: str, k: int | None, expected: float
) -> None:
    found = graded("retrieval_overlap", None, {"documents": ["a", "c"]}, *SPANS, metric=metric, k=k)
    assert found == pytest.approx(expected)


def test_ndcg_by_hand() -> None:
    """Found a b c with gains 3 0 1: (3 + 1/2) / (3 + 1/log2(3))."""
    found = graded("retrieval_overlap", None, {"documents": {"a": 3, "c": 1}}, *SPANS, metric="ndcg")
    assert found == pytest.approx(3.5 / 3.6309297535714573)


@pytest.mark.parametrize(
    ("parameters", "output", "expected"),
    [
        ({"of": "given"}, '["a", "x"]', 0.5),
        ({"of": "given"}, ["a", {"id": "c"}], 1.0),
        ({"of": "given"}, "a", 2 / 3),
        ({"of": "words"}, "the a a", 0.4),
        ({}, None, 0.0),
    ],
)
def test_overlap_of_given_ids_and_words(parameters: dict[str, Any], output: Json, expected: float) -> None:
    reference: Json = "a c" if parameters.get("of") == "words" else ["a", "c"]
    assert graded("retrieval_overlap", output, {"documents": reference}, **parameters) == pytest.approx(expected)


def test_an_empty_reference_is_the_graders_failure() -> None:
    with pytest.raises(BrokenReferenceError):
        graded("retrieval_overlap", ["a"], {"documents": []}, of="given")


def section(tmp_path: Path, functions: str) -> RewardSection:
    file = tmp_path / "run.yaml"
    file.write_text(f"reward: {{functions: [{functions}]}}")
    return load_section(file, "reward", RewardSection)


async def test_a_run_file_names_a_grader_with_its_parameters(tmp_path: Path) -> None:
    found = section(tmp_path, "{grader: numeric, answer: metadata.a, tolerance: 0.5, weight: 2, name: outcome}")
    [answers] = await function_runner(found.functions).answers([a_view("4.2", {"a": 4})])
    assert (answers["outcome"].values, found.functions[0].weight) == ({"": 1.0}, 2.0)


async def test_a_broken_reference_is_named_and_never_a_zero(tmp_path: Path) -> None:
    runner = function_runner(section(tmp_path, "{grader: numeric, retries: 0}").functions)
    [answers] = await runner.answers([a_view("4", {"answer": "four"})])
    assert (answers["numeric"].failure, answers["numeric"].values) == (FailureKind.EXCEPTION, {})


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("{grader: nonsense}", "not one of exact_match, numeric"),
        ("{grader: numeric, tolerence: 1}", "tolerence"),
        ("{grader: numeric, entry: exact_match}", "either an entry or a grader"),
        ("{name: outcome}", "either an entry or a grader"),
        ("{grader: numeric, memory_mb: 100}", "memory_mb: only with isolated: true"),
        ("{grader: numeric, workers: 2, memory_mb: 100}", "memory_mb and workers: only with isolated: true"),
        ("{entry: exact_match, timeout_s: 0}", "timeout_s"),
        ("{entry: exact_match}, {entry: 'leyden.reward.functions:exact_match'}", "two rules are called exact_match"),
    ],
)
def test_a_wrong_function_says_what_is_wrong(tmp_path: Path, function: str, reason: str) -> None:
    with pytest.raises(RunFileError, match=reason):
        section(tmp_path, function)


BEYOND = 2**53


@pytest.mark.parametrize(
    ("grader", "output", "answer"),
    [
        ("exact_match", "1,2", "12"),
        ("exact_match", "1_2", "12"),
        ("exact_match", "12,34", 1234),
        ("exact_match", ",123", 123),
        ("exact_match", "\u0661\u0662", 12),
        ("exact_match", BEYOND + 1, BEYOND),
        ("exact_match", str(BEYOND + 1), BEYOND),
        ("exact_match", "0.1000000000000000055", 0.1),
        ("numeric", BEYOND + 1, BEYOND),
        ("numeric", f"it is {BEYOND + 1}", str(BEYOND)),
        ("numeric", 1000001, 1000000),
        ("numeric", "1,000,001", 1000000),
        ("numeric", 1000000.5, 1000000),
        ("numeric", "123456789.1", 123456789),
        ("numeric", "7e-9999", 0),
        ("numeric", "1e-9999/1e-9999 " * 1000, 1),
    ],
)
def test_what_is_not_the_number_is_not_taken_for_it(grader: str, output: Json, answer: Json) -> None:
    assert graded(grader, output, {"answer": answer}) == 0.0


@pytest.mark.parametrize(
    ("grader", "output", "answer"),
    [
        ("exact_match", "1,234", 1234),
        ("exact_match", "-1,234,567.50", -1234567.5),
        ("exact_match", "+.5", 0.5),
        ("exact_match", "5.", 5),
        ("exact_match", "1.2E3", 1200),
        ("exact_match", "1,2", " 1,2 "),
        ("exact_match", "1e400", "1E400"),
        ("exact_match", "0.1", 0.1),
        ("numeric", "0.333333", "1/3"),
        ("numeric", "3.1415927", 3.141592653589793),
        ("numeric", "12.0", 12),
        ("numeric", 2.9999999, 3),
    ],
)
def test_one_number_in_two_notations_is_one(grader: str, output: Json, answer: Json) -> None:
    assert graded(grader, output, {"answer": answer}) == 1.0


integers = st.integers(-(2**80), 2**80)


@given(a=integers, near=st.integers(-3, 3) | integers, form=st.sampled_from(["{}", "{:,}", "so it is {}", "{:,} m"]))
def test_integers_are_equal_or_not_however_large(a: int, near: int, form: str) -> None:
    b = a + near
    assert graded("numeric", form.format(b), {"answer": a}) == float(a == b)
    if form in ("{}", "{:,}"):
        assert graded("exact_match", form.format(b), {"answer": a}) == float(a == b)
        assert graded("exact_match", b, {"answer": str(a)}) == float(a == b)


@given(st.integers(1000, 10**12), st.integers(1, 12), st.sampled_from(",_ '"))
def test_a_separator_out_of_its_place_makes_no_number(value: int, place: int, separator: str) -> None:
    digits = str(value)
    written = digits[:place] + separator + digits[place:]
    right = separator == "," and len(digits) <= 6 and len(digits) - place == 3
    assert graded("exact_match", written, {"answer": value}) == float(right or written.strip() == digits)


@given(st.text(alphabet="0123456789,._+-eE \u0661", max_size=40))
def test_exact_match_reads_any_text(text: str) -> None:
    assert graded("exact_match", text, {"answer": text}) == 1.0


@pytest.mark.parametrize(
    ("given_", "expected"), [(10**10 + 1, 0.0), (10**10, 1.0), (10.0**10, 1.0), ("0.1 + 0.2", 0.0)]
)
def test_sql_compares_whole_numbers_exactly(given_: object, expected: float) -> None:
    metadata: JsonObject = {"sql": f"SELECT {10**10}", "schema": "CREATE TABLE t (x)"}
    assert graded("sql_result", f"SELECT {given_}", metadata) == expected


def test_an_explicit_tolerance_holds_for_integers_too() -> None:
    assert graded("numeric", 103, {"answer": 100}, tolerance=0.05) == 1.0
    assert graded("numeric", 106, {"answer": 100}, tolerance=0.05) == 0.0
