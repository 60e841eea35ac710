"""Right tokens and right answers of an evaluation, and the training of probes."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from processes_run import QUIET

from lightning_xt.core.batch import PackedBatch
from lightning_xt.data.probes.parity import Parity
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.masked_language_model import MaskedLanguageModel
from lightning_xt.training.metrics.answer_scores import AnswerScores
from lightning_xt.training.seq2seq import Seq2Seq

ONE_PROCESS = SimpleNamespace(strategy=SimpleNamespace(reduce=lambda sums, reduce_op: sums))


def test_right_tokens_and_answers():
    tokens = torch.tensor([[5, 1, 2, 3], [5, 1, 2, 2], [5, 0, 0, 0], [5, 1, 3, -100]])
    scored = torch.tensor([[False, True, True], [False, True, True], [False, False, False], [True, True, True]])
    said = torch.tensor([[0, 2, 3], [1, 2, 3], [1, 1, 1], [1, 3, 0]])
    scores = AnswerScores(torch.device("cpu"))
    for rows in (slice(0, 1), slice(1, 4)):
        scores.add(torch.nn.functional.one_hot(said[rows], 6).float(), tokens[rows], scored[rows])
    # Of six tokens the last of the second row is wrong; the third row is not an answer.
    assert scores.sums.tolist() == [5, 6, 2, 3]
    found = scores.compute(ONE_PROCESS)
    assert found["token_accuracy"] == pytest.approx(5 / 6) and found["exact_match"] == pytest.approx(2 / 3)


def make_model(**options):
    vocab = Parity(min_length=3).vocab
    return LanguageModel(vocab=vocab) if not options else LanguageModel.from_config({"vocab": vocab, **options})


SMALL = {"dim": 16, "depth": 1, "attention": {"heads": 2}}


def test_a_fit_learns_answers_only(tmp_path):
    data = Parity(min_length=3, max_length=5, batch_size=4, validation_size=6, test_size=6)
    model = make_model(decoder=SMALL)
    trainer = Trainer(**QUIET, max_steps=2, val_check_interval=2, default_root_dir=tmp_path)
    trainer.fit(model, data)
    found = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert {"val/loss", "val/token_accuracy", "val/exact_match"} <= found.keys()
    # An answer is one token.
    assert found["val/token_accuracy"] == found["val/exact_match"]
    # By hand, from the logits of each row.
    model.eval()
    right = []
    for batch in data.val_dataloader():
        for tokens, scored in zip(batch.tokens, batch.scored, strict=True):
            (place,) = scored.nonzero().flatten().tolist()
            right.append(model.network(tokens[None, : place + 1])[0, -1].argmax().item() == tokens[place + 1].item())
    assert len(right) == 6 and found["val/exact_match"] == pytest.approx(sum(right) / 6)


def test_padding_and_questions_change_no_loss():
    batch = next(iter(Parity(min_length=3, max_length=9, batch_size=5).train_dataloader()))
    model = make_model(decoder=SMALL).double()
    ids, scored, inputs = model.read_packed(batch)
    assert inputs.documents is None
    loss = model.score(model.network, ids, scored, inputs)
    alone = []
    for tokens, counted in zip(batch.tokens, batch.scored, strict=True):
        (place,) = counted.nonzero().flatten().tolist()
        logits = model.network(tokens[None, : place + 1])[0, -1]
        alone.append(-logits.log_softmax(-1)[tokens[place + 1]])
    assert loss.count == 5
    torch.testing.assert_close(loss.mean, torch.stack(alone).mean(), rtol=1e-12, atol=0)
    assert model.read_example(batch, 6).inputs is None


def test_an_objective_without_logits_is_refused():
    model = make_model(decoder=SMALL)
    loss = model.score(model.network, torch.ones(1, 3, dtype=torch.long), None)
    assert model.require_logits(loss) is loss.logits
    with pytest.raises(ValueError, match="objective: NextToken keeps no logits; set them in its Loss"):
        model.require_logits(replace(loss, logits=None))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Seq2Seq, "--model Seq2Seq cannot read --data Parity, which serves questions and answers in one row"),
        (MaskedLanguageModel, "--model MaskedLanguageModel cannot read --data Parity, which serves answers that"),
    ],
)
def test_other_models_refuse_probes(kind, message):
    size = {"dim": 16, "depth": 1}
    parts = {"encoder": size, "decoder": size} if kind is Seq2Seq else {"encoder": size}
    model = kind.from_config({"vocab": {**Parity().vocab, "start": 1}, **parts})
    with pytest.raises(ValueError, match=message):
        Trainer(**QUIET, max_steps=1).fit(model, Parity(min_length=3))


def test_metrics_of_probes_may_be_monitored():
    for monitor, refused in (("val/exact_match", False), ("val/exact_mach", True)):
        data = Parity(min_length=3, batch_size=2, validation_size=4)
        trainer = Trainer(**{**QUIET, "callbacks": [EarlyStopping(monitor)]}, max_steps=1, val_check_interval=1)
        if refused:
            with pytest.raises(ValueError, match="did you mean val/exact_match"):
                trainer.fit(make_model(decoder=SMALL), data)
        else:
            trainer.fit(make_model(decoder=SMALL), data)


def test_rows_without_documents_are_examples():
    tokens, scored = torch.tensor([[2, 1, 3, 0]]), torch.tensor([[False, True, False]])
    batch = PackedBatch(tokens, scored, None)
    assert make_model(decoder=SMALL).read_evaluation(batch)[2].documents is None
