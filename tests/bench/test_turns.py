"""The card of turns, at one layer, and how crossings and slopes are found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from riallm.bench import turns
from riallm.bench.reactive import counter
from riallm.bench.stateless import Stateless, Turn, peer_config
from riallm.models.llama import Llama
from riallm.models.rxt import RxT
from riallm.models.zoo import RXT_BETA_MICRO
from riallm.nn import page_attention
from riallm.nn.meta import TokenMeta


def test_a_short_conversation_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not page_attention.available():
        pytest.skip("there is no C++ compiler here")
    small = ["--turns", "4", "--query", "5", "--answer", "3", "--layers", "1", "--conversations", "2"]
    assert turns.main([*small, "--plot", str(tmp_path / "turns.svg")]) == 0
    card = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert card["turns"] == 4 and card["device"] == "processor"
    assert card["flops_spread_percent"] == 0.0
    assert card["kept_spread_percent"] == 0.0
    assert card["peak_spread_percent"] < 5.0
    assert card["kept_median"] == 1024 * 256 * 4
    assert card["turn_4_gflops_anew"] > card["turn_4_gflops_cached"] > card["turn_2_gflops_cached"]
    assert all(card[f"turn_{turn}_first_milliseconds_anew"] > 0 for turn in (1, 2, 4))
    assert "stateless, reading all anew" in (tmp_path / "turns.svg").read_text("utf-8")


@pytest.mark.parametrize(
    "wrong",
    [
        ["--turns", "2"],
        ["--query", "0"],
        ["--answer", "1"],
        ["--layers", "0"],
        ["--conversations", "1"],
        ["--plot", "nowhere/turns.svg"],
        ["--plot", "turns.png"],
    ],
)
def test_what_cannot_be_measured_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert turns.main(wrong) == 2
    assert "turns: " in capsys.readouterr().err


def test_a_device_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert turns.main(["--device", "cuda"]) == 2
    assert "PyTorch sees no GPU here" in capsys.readouterr().err


def test_the_peer_has_as_many_active_parameters() -> None:
    peer = peer_config(RXT_BETA_MICRO)
    with torch.device("meta"):
        reactive, stateless = RxT(RXT_BETA_MICRO), Llama(peer)
    experts = sum(p.numel() for name, p in reactive.named_parameters() if "experts" in name)
    decoder = sum(p.numel() for name, p in reactive.named_parameters() if name.startswith(("embed", "layers", "lm_")))
    active = decoder - experts * 38 // 42
    assert stateless.costs().num_parameters == pytest.approx(active, rel=1e-3)


def test_flops_of_the_stateless_model_are_what_pytorch_counts() -> None:
    model = Llama(peer_config(replace(RXT_BETA_MICRO, num_layers=1)))
    peer = Stateless(model, lambda num: torch.zeros((1, num), dtype=torch.int64), num_tokens=64, cached=True)
    tokens = torch.zeros((1, 40), dtype=torch.int64)
    with torch.inference_mode(), counter() as counted:
        model.logits(model(tokens, TokenMeta.plain(1, 40)).hidden)
    square = 40 * 40 * model.costs().attention_flops_per_token_pair  # the counter takes a causal mask for a full one
    causal = 40 * 41 // 2 * model.costs().attention_flops_per_token_pair
    assert peer.flops(0, 40, said=40) - causal + square == counted.get_total_flops()
    assert peer.flops(0, 40, said=3) == peer.flops(0, 30, said=1) + peer.flops(30, 40, said=2)


def test_flops_of_a_stateless_turn_are_what_pytorch_counts_in_it() -> None:
    """But for attention, which PyTorch does not count in pages. The head names the tokens of the answer and no others,
    as it does for RxT."""
    if not page_attention.available():
        pytest.skip("there is no C++ compiler here")
    model = Llama(peer_config(replace(RXT_BETA_MICRO, num_layers=1))).eval()
    pair = model.costs().attention_flops_per_token_pair
    for cached in (True, False):
        peer = Stateless(
            model, lambda num: torch.zeros((1, num), dtype=torch.int64), num_tokens=64, cached=cached, device="cpu"
        )
        for history in (0, 12):
            with torch.inference_mode(), counter() as counted:
                turn = peer.turn(9, 3)
            first, last = history if cached else 0, history + 11
            pairs = (last * (last + 1) - first * (first + 1)) // 2
            assert turn.flops == counted.get_total_flops() + pairs * pair


def test_slopes_and_crossings() -> None:
    drifting = [
        [5.0 + 0.5 * (begin + turn) + noise for turn, noise in enumerate((0.0, 0.1, -0.1, 0.1))] for begin in (0, 2)
    ]
    flat = turns.slope(drifting, [0, 2])
    assert flat.low <= 0 <= flat.high
    rising = [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]] * 2
    assert turns.slope(rising, [0, 2]).low == turns.slope(rising, [0, 2]).high == pytest.approx(1 / 4)
    assert turns.crossing([2, 4, 8], 3.0, [1.0, 2.0, 4.0]) == 6.0
    assert turns.crossing([2, 4, 8], 0.5, [1.0, 2.0, 4.0]) == 2.0
    assert turns.crossing([2, 4, 8], 9.0, [1.0, 2.0, 4.0]) is None
    assert turns.crossing([2, 4, 8], 3.0, [9.0, 2.0, 4.0]) == 6.0, "from which on, and not where it did once"
    assert turns.crossing([2, 4, 8], 3.0, [2.0, 4.0, 2.0]) is None


def test_a_busy_moment_moves_no_crossing() -> None:
    costs = [float(turn) for turn in range(40)]
    costs[3] = costs[4] = costs[5] = 1000.0
    assert turns._line(costs) == pytest.approx([float(turn) for turn in range(40)])


def test_the_first_turn_of_the_peer_counts_nowhere_either() -> None:
    def turn(first: float, flops: float) -> Turn:
        return Turn(first=first, rest=1.0, update=1.0, flops=flops, kept=1)

    ours = [[turn(3.0, 3.0)] * 8] * 2
    anew = [turn(9.0, 9.0), *(turn(float(number), float(number)) for number in (2, 4, 8))]
    found = turns.told(turns.Measured(ours, [0, 4], [turn(1.0, 1.0)] * 8, [1, 2, 4, 8], anew, [1] * 4, [3] * 4))
    for name, wanted in (("first", 3.0), ("whole", 4.0), ("flops", 3.0)):  # the whole has the update
        assert found[f"anew_{name}_from_turn"] == wanted
        assert found[f"cached_{name}_from_turn"] is None
