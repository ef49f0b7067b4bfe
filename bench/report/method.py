"""Texts of the page's section on methods, by term; each fact is explained only here."""

from __future__ import annotations

from bench.analysis.seed_spread import DEGREES, experience
from bench.analysis.speed import EQUAL, LEAST_PAIRS, PRIOR_SD
from bench.parity.tolerances import STEPS
from bench.training.clocks import LEAST_WINDOWS, WARMUP_STEPS, WINDOW_S

METHOD: tuple[tuple[str, str], ...] = (
    ("test top-1",
     "Fraction of the test images whose true class gets the highest score. They are used once, "
     "after all training; every choice is made on validation images. Differences are in points: "
     "from 80 % to 82 % is 2 points."),
    ("intervals",
     "95 % intervals, for training again with other seeds and for other test images of the same "
     "kind. Seeds and images are crossed random effects, so their variances add. Images that "
     "belong together (crops of one photograph, frames of one video) count as one draw."),
    ("spread of seeds",
     f"Few seeds say little about their own spread. Earlier runs count as {DEGREES:g} degrees of "
     f"freedom beside it ({experience().source}); where these runs spread significantly more, "
     "they alone count."),
    ("ruled out, best, open",
     "A policy is ruled out if a step-down range test shows that it is not the best. In "
     "simulations one of several equal policies was ruled out in about 5 % of questions or fewer, "
     "unless seeds spread more than assumed. If one policy is left, it is the "
     "best. The others are open."),
    ("chance to be within the margin",
     "Share of 5,000 draws of the true accuracies, given these results, in which a policy is "
     "within the margin of the best. From 95 % on it is called as good as the best."),
    ("averages",
     "Averages over tests treat these tests as all there are; they say nothing of other data. "
     "Tests on the same images count as fully dependent. Backends are averaged, as they are no "
     "new seeds."),
    ("two backends",
     "They are compared image by image. differ: the p value, corrected for all pairs (Holm), is "
     "below 5 % and the 95 % interval excludes 0. equal: the 90 % interval lies within the "
     "margin."),
    ("parity",
     "paired: both backends started from the same tensors, saw the same batches, and their "
     "first losses and logits agree. proved: a separate proof in float64 found the same losses "
     f"over {STEPS} steps, logits, gradients and more. differs: they did not do the same and are "
     "not compared."),
    ("speed",
     f"train images/s: median window ({WINDOW_S:g} s) of whole training steps after "
     f"{WARMUP_STEPS} steps of warm-up, if there are {LEAST_WINDOWS} windows. effective images/s: "
     "images of all epochs over all training, where a frozen part was computed once or the policy "
     "has phases; the two are never compared. Windows of one run "
     f"agree better than runs do, so backends are compared by pairs of runs: from {LEAST_PAIRS} "
     f"pairs on by Wilcoxon's signed ranks, before with a usual spread of {PRIOR_SD['cpu']:.0%} "
     f"a run on a CPU. equal: within {EQUAL:.0%}."),
    ("time",
     "fit: training and validation over all epochs, compilation included, trials of --tune and "
     "the test not. Relative times leave compilation out."),
    ("trainable parameters",
     "Trained weights and biases, counted by the framework. The moving statistics of BatchNorm "
     "are not parameters."),
)  # fmt: skip
"""Name → text."""
