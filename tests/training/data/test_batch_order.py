"""The order of the data: a function of plan, seed and step, whatever the number of ranks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mvl_training.data.batch_order import BatchOrder


@given(st.integers(1, 60), st.integers(1, 12))
def test_an_epoch_takes_every_sample_once_in_steps_of_exactly_the_batch(n_samples: int, batch: int) -> None:
    order = BatchOrder(n_samples, batch, seed=5)
    for epoch in (0, 1):
        first_step = epoch * order.steps_per_epoch
        steps = [
            order.list_step_samples(step).tolist() for step in range(first_step, first_step + order.steps_per_epoch)
        ]
        assert {len(step) for step in steps[:-1]} <= {batch}
        assert sorted(position for step in steps for position in step) == list(range(n_samples))


def test_later_epochs_are_shuffled_by_seed() -> None:
    def list_second_epoch(seed: int) -> list[int]:
        order = BatchOrder(50, 5, seed)
        return [position for step in range(10, 20) for position in order.list_step_samples(step).tolist()]

    assert list_second_epoch(1) != list(range(50))
    assert list_second_epoch(1) == list_second_epoch(1)
    assert list_second_epoch(1) != list_second_epoch(2)


@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 40))
def test_samples_of_several_steps_are_counted(n_samples: int, batch: int, n_steps: int) -> None:
    order = BatchOrder(n_samples, batch, seed=0)
    assert order.count_samples(n_steps) == sum(len(order.list_step_samples(step)) for step in range(n_steps))
