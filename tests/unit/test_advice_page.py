"""Advice in words and as a page: the same numbers, every text escaped."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.advise.advice import (
    UNTRIED,
    Advice,
    Alternative,
    ArticleRule,
    CurveForecast,
    DataWanted,
    MoreImages,
    Sign,
    Strategy,
    Trained,
)
from bench.advise.belief import TIE_LEVEL
from bench.report.advice.page import write_advice_page
from bench.report.advice.words import advice_text, more_images_sentence


def _strategy(policy: str, top1: float, train_s: float, *, is_contender: bool = True) -> Strategy:
    return Strategy(
        policy=policy, backbone="squeezenet1_1", backend="torch", head="linear",
        learning_rate=0.003, epochs=10, expected_test_top1=top1,
        interval=(top1 - 0.05, top1 + 0.04),
        shortfall=0.01, is_contender=is_contender, train_s=train_s, total_parameters=731_730,
        trainable_parameters=9_234, peak_host_bytes=880_000_000, infer_images_per_s=512.0, folds=2,
    )  # fmt: skip


FORECAST = CurveForecast(
    curve="linear_probe_then_fine_tune", error=0.123, error_interval=(0.101, 0.145), images=350,
    gain=0.021, interval=(0.008, 0.035),
)  # fmt: skip
CHEAP, BEST = _strategy("freeze_all", 0.812, 4.0), _strategy("fine_tune_all", 0.818, 61.0)
ADVICE = Advice(
    dataset="folder:<b>flowers</b>", train_images=350, test_images=75, classes=5, case=1,
    similarity="similar", size="small", recommendation=CHEAP, as_good=(CHEAP, BEST),
    expected_test_top1=0.812, interval=CHEAP.interval,
    more_images=MoreImages(images=350, gain=0.021, interval=(0.008, 0.035), curve="linear probe"),
    alternatives=(Alternative(strategy=BEST, gives_up="0.6 points more are expected."),),
    article_says=ArticleRule(case=1, policy="freeze_all", words="The article says so, too."),
    spent_s=200.0, budget_s=600.0, tried=(BEST, CHEAP), forecasts=(FORECAST,),
)  # fmt: skip


def test_the_answer_its_cost_and_its_alternatives_are_said() -> None:
    text = advice_text(ADVICE)
    assert text.startswith("Recommended: freeze_all of squeezenet1_1 in torch, learning rate 0.003")
    assert "81.2 % (76.2 to 85.2)" in text
    size = "350 training images count as a small data set here: case 1 of the article"
    assert f"{size} (docs/advice.md)." in text
    assert "350 more images: +2.1 points (0.8 to 3.5; learning curve: linear probe)." in text
    assert "Alternative: fine_tune_all of squeezenet1_1 in torch, learning rate 0.003: 0.6" in text
    assert "200 of 600 s were spent" in text


def test_tables_fit_a_terminal_of_80_columns() -> None:
    longest = CHEAP.model_copy(
        update={"policy": "linear_probe_then_fine_tune", "backend": "keras-tensorflow",
                "backbone": "efficientnet_lite0", "trainable_parameters": 143_667_240,
                "learning_rate": 0.000333}
    )  # fmt: skip
    advice = ADVICE.model_copy(update={"as_good": (longest, CHEAP)})
    text = advice_text(advice)
    table = [line for line in text.splitlines() if "  " in line or line.startswith("---")]
    assert len(table) > 10
    assert max(map(len, table)) <= 80
    assert "12.3 (10.1 to 14.5)" in text, "the error now, with its interval"


def test_after_the_full_run_nothing_is_called_untried_and_a_miss_is_said() -> None:
    untried = CHEAP.model_copy(update={"folds": 0})
    advice = ADVICE.model_copy(
        update={"recommendation": untried, "as_good": (untried, BEST),
                "would_change": (f"freeze_all {UNTRIED} for all epochs.", "More images could.")}
    )  # fmt: skip
    assert "It was not tried for all epochs yet." in advice_text(advice)
    trained = Trained(test_top1=0.8, fit_s=9.0, predicts_alike=True, folder="p",
                      is_as_predicted=True)  # fmt: skip
    found = advice.after_training(trained)
    assert found.recommendation is not None
    assert found.recommendation.train_s == 4.0, "with which the others are compared"
    assert found.recommendation == found.as_good[0], "it is marked by that"
    assert found.warnings == ()
    missed = ADVICE.after_training(trained.model_copy(update={"is_as_predicted": False}))
    assert missed.warnings == (
        "The full run reached 80.0%, which is not within the predicted 76.2% to 85.2%.",
    )
    text = advice_text(found)
    assert "not tried" not in text
    assert "More images could." in text


@pytest.mark.parametrize(
    ("size", "size_by", "said"),
    [("medium", "trials", "the trials do not show it for sure"),
     ("medium", "images", "by their number alone"),
     ("small", "trials", "is not expected to pay here")],
)  # fmt: skip
def test_what_the_size_rests_on_is_said(size: str, size_by: str, said: str) -> None:
    assert said in advice_text(ADVICE.model_copy(update={"size": size, "size_by": size_by}))


def test_that_no_learning_curve_was_measured_is_said() -> None:
    advice = ADVICE.model_copy(update={"more_images": None, "forecasts": ()})
    assert "What more images would bring was not measured" in advice_text(advice)


@pytest.mark.parametrize(
    ("settled", "exhausted", "words"),
    [(True, True, "is settled"), (False, True, "more time could not"),
     (False, False, "larger --budget")],
)  # fmt: skip
def test_what_would_help_is_said(settled: bool, exhausted: bool, words: str) -> None:
    changes = {"is_settled": settled, "is_exhausted": exhausted}
    assert words in advice_text(ADVICE.model_copy(update=changes))


def test_a_gain_of_nothing_is_said_in_words() -> None:
    none = MoreImages(images=350, gain=0.001, interval=(0.0, 0.003), curve="linear probe")
    advice = ADVICE.model_copy(update={"more_images": none})
    assert more_images_sentence(advice) == "More images will hardly help."


def test_the_page_marks_the_recommended_set_and_escapes_every_text(tmp_path: Path) -> None:
    path = tmp_path / "advice.html"
    write_advice_page(ADVICE, path)
    text = path.read_text()
    assert "<b>flowers</b>" not in text
    assert "&lt;b&gt;flowers&lt;/b&gt;" in text
    assert '"star"' in text
    assert "training time of the full run" in text
    assert f"probability of\n{100 * TIE_LEVEL:g} % or more" in text
    assert "http://" not in text.replace("http://www.w3.org", "").split("plotly", 1)[0]


def test_a_refusal_names_the_files(tmp_path: Path) -> None:
    sign = Sign(kind="labels", message="the labels are <i>shuffled</i>", files=("a/<x>.png",))
    advice = ADVICE.model_copy(
        update={"recommendation": None, "signs": (sign,), "as_good": (), "tried": ()}
    )
    text = advice_text(advice)
    assert "cannot support advice" in text
    assert "a/<x>.png" in text
    path = tmp_path / "advice.html"
    write_advice_page(advice, path)
    page = path.read_text()
    assert "No advice for these images" in page
    assert "a/&lt;x&gt;.png" in page


@pytest.mark.parametrize(
    ("images", "sentence"),
    [(1400, "90.0 % takes some 1,400 training images in all."),
     (None, "More images alone are not expected to bring 90.0 %.")],
)  # fmt: skip
def test_the_images_for_a_target_are_said(
    images: int | None, sentence: str, tmp_path: Path
) -> None:
    advice = ADVICE.model_copy(update={"data_wanted": DataWanted(top1=0.9, images=images)})
    assert sentence in advice_text(advice)
    write_advice_page(advice, tmp_path / "a.html")
    assert sentence in (tmp_path / "a.html").read_text()
