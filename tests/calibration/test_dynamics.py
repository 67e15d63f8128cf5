"""Intervals of depth control hold what the fitted maps say of other sentences; many samples are on its page."""

from calibration import dynamics


def test_intervals_of_depth_control_hold_what_is_so_of_other_sentences(monkeypatch):
    monkeypatch.setattr(dynamics, "OTHERS", 10_000)
    found = dynamics.controlled(40, 10)
    for name in ("value", "alone", "left"):
        assert found[f"{name} holds"] >= 0.8, found
        assert 0.6 < found[f"{name} width"] < 1.8, found
