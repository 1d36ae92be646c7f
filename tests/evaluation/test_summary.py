"""Means over clips with their uncertainty, and what is missing."""

import numpy as np
import pytest

from ditar_hf.evaluation.summary import (
    NotMeasuredError,
    mean_with_interval,
    require_package,
    summarize,
    unavailable,
)


class TestMean:
    def test_weights_are_those_of_the_ratio_of_sums(self):
        errors, words = np.array([1.0, 0.0, 6.0]), np.array([2.0, 10.0, 8.0])
        assert mean_with_interval(errors / words, words)[0] == pytest.approx(errors.sum() / words.sum())

    def test_equal_values_are_certain(self):
        assert mean_with_interval([2.5] * 7) == (2.5, (2.5, 2.5))

    def test_a_single_clip_has_no_interval(self):
        assert mean_with_interval([1.5]) == (1.5, None)

    def test_it_is_repeatable_and_in_any_order_about_the_same(self):
        values = np.random.default_rng(0).normal(size=200)
        assert mean_with_interval(values) == mean_with_interval(values)
        # both estimate the same bounds, each with a deviation of about 0.005
        np.testing.assert_allclose(mean_with_interval(values)[1], mean_with_interval(values[::-1])[1], atol=0.05)

    def test_the_interval_is_that_of_the_normal_law(self):
        values = np.random.default_rng(0).normal(size=1000)
        mean, (low, high) = mean_with_interval(values)
        assert low < mean < high
        # 1.96 standard errors on both sides
        assert high - low == pytest.approx(2 * 1.96 * values.std() / 1000**0.5, rel=0.1)

    def test_clips_without_weight_do_not_count(self):
        mean, interval = mean_with_interval([1.0, 5.0, 1.0], [1.0, 0.0, 1.0])
        assert mean == 1 and interval == (1, 1)

    @pytest.mark.parametrize("arguments", [([],), ([1.0], [1.0, 2.0]), ([1.0], [0.0]), ([1.0, 2.0], [2.0, -1.0])])
    def test_bad_input_is_refused(self, arguments):
        with pytest.raises(ValueError, match="`weights`"):
            mean_with_interval(*arguments)


class TestMissing:
    def test_a_summary_counts_reasons(self):
        assert summarize([], reasons=["dull", "far", "far"]) == {"clips": 0, "not_measured": {"far": 2, "dull": 1}}
        summary = summarize([1.0, 3.0], reasons=["far"])
        assert (summary["mean"], summary["clips"], summary["not_measured"]) == (2, 2, {"far": 1})

    def test_an_absent_package_is_named_with_the_remedy(self):
        with pytest.raises(NotMeasuredError, match=r'no_such_package is not installed: pip install -e "\.\[eval'):
            require_package("no_such_package.part")

    def test_a_present_one_is_given(self):
        assert require_package("numpy.linalg") is np.linalg

    def test_a_stand_in_says_why(self):
        with pytest.raises(NotMeasuredError, match="nobody asked"):
            unavailable("nobody asked")(1, two=2)
