"""Tables of the ops' costs: what they add up to, and what they leave out."""

from profiles.bench_ops import by_pass
from profiles.op_sites import Cost
from profiles.op_tables import count_table, step_totals, time_table


def _row(times, triton, default):
    return {
        "site": "an op",
        "times": times,
        "triton": by_pass([c._asdict() | {"floor_us": 1.5} for c in triton]),
        "inductor": {"default": by_pass([c._asdict() for c in default])},
    }


def test_counts_add_up():
    first = _row(2, [Cost(2, 6_000_000), Cost(2, 10_000_000)], [Cost(3, 6_000_000), Cost(5, 22_000_000)])
    last = _row(1, [Cost(1, 1_000_000)], [Cost(2, 2_000_000)])
    *_, a, b, total = count_table([first, last])
    assert a == "| an op | 2 | 2+2 | 16.00 | 1.50+1.50 | 3+5 | 28.00 |"
    assert b == "| an op | 1 | 1 | 1.00 | 1.50 | 2 | 2.00 |"
    assert total == "| a step | | 9 | 33 | 8 | 18 | 58 |"
    rows = [first | {"preset": "cifar10"}, last | {"preset": "cifar10"}]
    assert step_totals(rows) == {"cifar10: kernels": 9, "cifar10: default": 18}


def test_times_add_up():
    def passes(*us):
        return by_pass([{"us": one, "kernels": 2.0, "bytes": 1_000_000} for one in us])

    rows = [
        {"site": "an op", "times": 3, "measured": {"copy": passes(1.0, 2.0), "eager": passes(4.0, 8.0)}},
        {"site": "a loss", "times": 1, "measured": {"copy": passes(1.0), "eager": passes(2.0)}},
    ]
    rows = [row | {"left_out": {}} for row in rows]
    *_, a, b, total = time_table(rows)
    assert a == "| an op | 3 | 2.00 | 1.0+2.0 | 4.0+8.0 (2+2) 25% |"
    assert b == "| a loss | 1 | 1.00 | 1.0 | 2.0 (2) 50% |"
    assert total == "| a step, us | | | 10 | 38 |"
    totals = step_totals([row | {"preset": "svhn"} for row in rows])
    assert totals == {"svhn: copy": 10, "svhn: eager": 38}


def test_a_variant_that_is_left_out_has_a_column_and_no_sum():
    """Whichever row it lacks, the first or another."""
    one = by_pass([{"us": 2.0, "kernels": 1.0, "bytes": 1_000_000}])
    rows = [
        {"site": "an op", "times": 1, "measured": {"copy": one, "eager": one}, "left_out": {"a": "why", "b": "why"}},
        {"site": "a loss", "times": 1, "measured": {"copy": one, "eager": one, "a": one, "b": one}, "left_out": {}},
        {"site": "last", "times": 1, "measured": {"copy": one, "a": one, "b": one}, "left_out": {"eager": "why"}},
    ]
    head, _, first, second, last, total = time_table(rows)
    assert head == "| op | times | MB | copy us | eager | a | b |"
    assert first.endswith("| 2.0 | 2.0 (1) 100% | - | - |")
    assert second.endswith("| 2.0 | 2.0 (1) 100% | 2.0 (1) 100% | 2.0 (1) 100% |")
    assert last.endswith("| 2.0 | - | 2.0 (1) 100% | 2.0 (1) 100% |")
    assert total == "| a step, us | | | 6 | - | - | - |"
    assert step_totals([row | {"preset": "svhn"} for row in rows]) == {"svhn: copy": 6}
