"""From Parquet to tokens: one BOS, the loss on the response and its end, both orders, ties."""

from pathlib import Path

import pytest

from flywheel_core.engines.rendering import encode, render_pairwise, render_pointwise, render_prompt
from flywheel_core.errors import InputDataError
from flywheel_core.training.data import (
    IGNORED,
    encode_responses,
    end_of_turn_id,
    length_tokens,
    padding_id,
    preference_rows,
    require_rows,
    reward_rows,
    sft_rows,
)
from tests.engines.tiny import make_tokenizer, messages
from tests.training.toy import NUM_ROWS, Toy, answer, reward_config, write


def test_sft_learns_the_response_and_its_end_only(toy: Toy) -> None:
    rows = sft_rows(toy.sft, toy.tokenizer, 200).rows
    assert len(rows) == NUM_ROWS
    for number, row in enumerate(rows):
        learned = [token for token in row["labels"] if token != IGNORED]
        assert toy.tokenizer.decode(learned) == answer(number) + "<|eot_id|>"
        assert row["labels"][-len(learned) :] == row["input_ids"][-len(learned) :]
        assert row["input_ids"].count(toy.tokenizer.bos_token_id) == 1


def test_the_prompt_is_tokenised_as_serving_does(toy: Toy) -> None:
    row = sft_rows(toy.sft, toy.tokenizer, 200).rows[3]
    prompt = encode(toy.tokenizer, [render_prompt(toy.tokenizer, messages(3))])[0]
    assert row["input_ids"][: len(prompt)] == prompt
    assert row["labels"][: len(prompt)] == [IGNORED] * len(prompt)


def test_long_rows_are_left_out_and_counted(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    lengths = [len(row["input_ids"]) for row in sft_rows(toy.sft, toy.tokenizer, 200).rows]
    limit = sorted(lengths)[5]
    found = sft_rows(toy.sft, toy.tokenizer, limit)
    assert found.num_too_long == sum(length > limit for length in lengths) > 0
    require_rows(toy.sft, found, limit)
    assert f"{found.num_too_long} rows longer than max_length_tokens" in capsys.readouterr().out
    with pytest.raises(InputDataError, match="all 12 are longer than max_length_tokens 8; raise"):
        require_rows(toy.sft, sft_rows(toy.sft, toy.tokenizer, 8), 8)


def test_dpo_takes_the_majority_and_drops_ties(toy: Toy) -> None:
    found = preference_rows(toy.pairs, toy.tokenizer, 200)
    assert (len(found.rows), found.num_ties) == (9, 3)
    first, second = found.rows[0], found.rows[1]  # targets 1 and 0
    assert toy.tokenizer.decode(first["chosen_ids"]) == answer(0) + "<|eot_id|>"
    assert toy.tokenizer.decode(second["rejected_ids"]) == answer(1) + "<|eot_id|>"
    assert toy.tokenizer.decode(second["chosen_ids"]) == answer(2) + " matey<|eot_id|>"


def test_pointwise_rows_are_what_the_scorer_sees(toy: Toy) -> None:
    row = reward_rows(toy.pairs, reward_config("pointwise"), toy.tokenizer).rows[2]
    text = render_pointwise(toy.tokenizer, messages(2), answer(2))
    assert row["chosen_ids"] == encode(toy.tokenizer, [text])[0]
    assert row["target"] == pytest.approx(2 / 3)


def test_pairwise_rows_come_in_both_orders(toy: Toy) -> None:
    rows = reward_rows(toy.pairs, reward_config("pairwise"), toy.tokenizer).rows
    assert len(rows) == 2 * NUM_ROWS
    swapped = render_pairwise(toy.tokenizer, messages(2), answer(3) + " matey", answer(2))
    assert rows[5]["input_ids"] == encode(toy.tokenizer, [swapped])[0]
    assert [row["target"] for row in rows[4:6]] == pytest.approx([2 / 3, 1 / 3])


def test_a_pair_too_long_in_one_order_goes_in_both(toy: Toy) -> None:
    lengths = [
        length_tokens(row)
        for row in reward_rows(toy.pairs, reward_config("pairwise"), toy.tokenizer).rows
    ]
    config = reward_config("pairwise", max_length_tokens=sorted(lengths)[11])
    found = reward_rows(toy.pairs, config, toy.tokenizer)
    assert len(found.rows) % 2 == 0
    assert found.num_too_long + len(found.rows) == 2 * NUM_ROWS
    targets = [row["target"] for row in found.rows]
    assert all(a + b == pytest.approx(1) for a, b in zip(targets[::2], targets[1::2], strict=True))


def test_end_of_turn_comes_from_the_template_not_from_eos() -> None:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = "<|end_header_id|>"  # as base checkpoints have another end of text
    assert end_of_turn_id(tokenizer) == tokenizer.convert_tokens_to_ids("<|eot_id|>")


def test_a_line_break_after_the_turn_is_not_learned() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("<|eot_id|>", "<|eot_id|>\n")
    ids = encode_responses(tokenizer, [messages(0)], ["aye"])[0]
    assert ids[-1] == tokenizer.convert_tokens_to_ids("<|eot_id|>")


def test_padding_is_never_the_end_of_turn() -> None:
    tokenizer = make_tokenizer()
    tokenizer.pad_token = "<|eot_id|>"
    assert padding_id(tokenizer) == tokenizer.convert_tokens_to_ids("<|pad|>")


def test_an_empty_file_says_where_to_look(toy: Toy, tmp_path: Path) -> None:
    table = write(tmp_path / "t.parquet", [{"messages": messages(0), "response": "a"}])
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(table).slice(0, 0), table)
    with pytest.raises(InputDataError, match=r"t\.parquet: no rows to train on; look at the stage"):
        require_rows(table, sft_rows(table, toy.tokenizer, 99), 99)
