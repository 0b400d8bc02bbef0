import pytest

from pipeline.training.settings import TrainingSettings


def test_the_learning_rate_warms_up_and_decays() -> None:
    settings = TrainingSettings(steps=101, lr=0.1, final_lr=0.001, warmup_steps=10)
    assert settings.lr_at(0) == pytest.approx(0.01)
    assert settings.lr_at(50) == pytest.approx(0.01)  # half-way in the exponent
    assert settings.lr_at(100) == pytest.approx(0.001)


def test_the_margin_grows_between_its_two_points() -> None:
    settings = TrainingSettings(steps=100, margin=0.2, margin_start=0.2, margin_full=0.6)
    assert [settings.margin_at(step) for step in (0, 20, 40, 60, 99)] == pytest.approx([0, 0, 0.1, 0.2, 0.2])
    assert TrainingSettings(steps=100, margin=0.2).margin_at(0) == 0.2


def test_a_margin_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValueError, match="margin_full comes before margin_start"):
        TrainingSettings(steps=1, margin_start=0.5, margin_full=0.4)


def test_the_rate_in_cycles() -> None:
    once = TrainingSettings(steps=10, lr=0.1, final_lr=0.001, warmup_steps=3)
    thrice = once.model_copy(update={"steps": 30, "rate_cycles": 3})
    assert [thrice.lr_at(step) for step in range(10, 20)] == pytest.approx(
        [once.lr_at(step) * (1 if step >= 3 else 3 / (step + 1)) for step in range(10)]
    )  # only the first cycle is warmed up
