"""Loss and gradients: of the network as a whole, or block by block with recomputation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import tensorflow as tf

from gpt2cli.arrays import Weights
from gpt2cli.hparams import HParams
from gpt2cli.network import gpt2, loss, xla_clusters
from gpt2cli.network.compiling import CompileMode, program
from gpt2cli.training.method import WHOLE, Method

# Takes gradients by name as soon as they are known; returns what is to be done with them before
# the next ones are computed.
Take = Callable[[dict[str, Any]], list[Any]]


@dataclasses.dataclass(frozen=True)
class Numerics:
    """How the network is computed in training.

    Attributes:
        dropout: share of activations to drop (0 to 1).
        precision: the type that matrices are multiplied in.
        method: how it is compiled, and who computes attention.
    """

    dropout: float = 0.0
    precision: Any = tf.float32
    method: Method = WHOLE


class Network:
    """A network and which of its weights are trained.

    Attributes:
        lean: whether what positions attend to is computed again on the way back.
    """

    lean = False

    def __init__(
        self,
        weights: Weights,
        hparams: HParams,
        trained: Collection[str],
        numerics: Numerics,
    ) -> None:
        """Takes variables by OpenAI's names, and the names of those whose gradients are wanted."""
        self._weights = weights
        self._hparams = hparams
        self._trained = trained
        self._method = numerics.method
        self._dropout = numerics.dropout
        self._precision = numerics.precision

    def __call__(self, tokens: Any, targets: Any, seed: Any, scale: Any, take: Take) -> Any:
        """Returns the mean loss (nats per token), a scalar; gradients go to who takes them.

        Args:
            tokens: int32 (batch, window).
            targets: int32 (batch, window), the next tokens; negative ones do not count.
            seed: int32 (2,), of the dropout.
            scale: what gradients are multiplied by, a scalar.
            take: takes each trained weight's gradient times the scale, once.
        """
        raise NotImplementedError

    def _compile(self, function: Callable[..., Any]) -> Any:
        return program(function, self._method.mode, gpu=self._method.gpu)

    def _layers(self, seed: Any) -> list[tuple[Weights, Any]]:
        """Returns each block's weights, and the seed of its dropout, which has two places."""
        blocks = [gpt2.block_weights(self._weights, n) for n in range(self._hparams.n_layer)]
        dropout = gpt2.Dropout(self._dropout, seed)
        return [(block, dropout.at(2 * n + 1).seed) for n, block in enumerate(blocks)]

    def _block(self, x: Any, weights: Weights, seed: Any) -> Any:
        dropout = gpt2.Dropout(self._dropout, seed)
        attend = self._method.attend(lean=self.lean)
        return gpt2.block(x, weights, self._hparams.n_head, attend, dropout)

    def _loss(self, hidden: Any, wte: Any, targets: Any, scale: Any) -> Any:
        """Returns the mean loss of (batch, window, embed) hidden states; its gradient is scaled."""
        rows = tf.reshape(hidden, [-1, hidden.shape[-1]])  # (batch * window, embed)
        at_once = self._method.loss_rows(lean=self.lean)
        return loss.next_token_loss(rows, wte, tf.reshape(targets, [-1]), scale, at_once)

    def _embed(self, tokens: Any, seed: Any) -> Any:
        dropout = gpt2.Dropout(self._dropout, seed)
        return gpt2.embed(self._weights, tokens, dropout=dropout, precision=self._precision)

    def _embed_gradients(self, tokens: Any, seed: Any, upstream: Any, of_wte: Any) -> Any:
        """Returns the embeddings' gradients; `of_wte` is the head's share of one of them."""
        upstream = tf.cast(upstream, tf.float32)  # (batch, window, embed)
        if self._dropout:
            upstream = gpt2.Dropout(self._dropout, seed)(upstream)
        rows = tf.reshape(upstream, [-1, self._hparams.n_embd])  # (batch * window, embed)
        of_wte = rows_added(of_wte, tf.reshape(tokens, [-1]), rows)
        unused = self._hparams.n_ctx - tokens.shape[1]
        of_wpe = tf.pad(tf.reduce_sum(upstream, axis=0), [[0, unused], [0, 0]])  # (n_ctx, embed)
        return {"model/wte": of_wte, "model/wpe": of_wpe}


class Whole(Network):
    """The network forward and back at a stretch: the fastest, and takes most memory."""

    def __init__(self, *network: Any) -> None:
        """Takes what Network takes."""
        super().__init__(*network)
        self._compiled = self._compile(self._loss_and_gradients)
        # All blocks are alike: traced once, forward and back, each is but a call. But XLA holds a
        # call's inputs, the weights too, for constants, and compiles anew where they change.
        whole = self._method.mode is CompileMode.FULL
        self._layer = self._block if whole else tf.function(self._block, autograph=False)

    def __call__(self, tokens: Any, targets: Any, seed: Any, scale: Any, take: Take) -> Any:
        """Returns the mean loss; all gradients are taken at once."""
        value, gradients = self._compiled(tokens, targets, seed, scale)
        take(gradients)
        return value

    def _loss_and_gradients(self, tokens: Any, targets: Any, seed: Any, scale: Any) -> Any:
        trained = {n: self._weights[n] for n in self._trained if n != "model/wpe"}
        x = self._embed(tokens, seed)
        with tf.GradientTape() as tape:
            tape.watch(x)
            hidden = gpt2.norm(self._through_blocks(x, seed), self._weights, "model/ln_f")
            wte = self._weights["model/wte"]
            value = self._loss(hidden, wte, targets, scale)
        upstream, gradients = tape.gradient(value, [x, trained])
        if "model/wpe" in self._trained:
            gradients |= self._embed_gradients(tokens, seed, upstream, gradients["model/wte"])
        return value, {name: gradients[name] for name in self._trained}

    def _through_blocks(self, x: Any, seed: Any) -> Any:
        for weights, block_seed in self._layers(seed):
            tensors = {name: tf.convert_to_tensor(weight) for name, weight in weights.items()}
            x = self._layer(x, tensors, block_seed)
        return x


class Recomputed(Network):
    """The network forward and back block by block, of each of which only the input is kept.

    One block is compiled once and called for every layer, so that the program is short; the way
    back runs the block forward once more (Chen et al. 2016).
    """

    lean = True

    def __init__(self, *network: Any) -> None:
        """Takes what Network takes."""
        super().__init__(*network)
        self._forward = self._compile(self._block)
        self._backward = self._compile(self._block_gradients)
        self._head = self._compile(self._head_gradients)
        self._embedded = self._compile(self._embed)
        self._embed_back = self._compile(self._embed_gradients)
        # As XLA's program it holds the largest gradient twice, but only so is what was dropped
        # found again.
        if self._method.mode is CompileMode.FULL and not self._dropout:
            self._embed_back = self._embed_gradients

    def __call__(self, tokens: Any, targets: Any, seed: Any, scale: Any, take: Take) -> Any:
        """Returns the mean loss; each block's gradients are taken before the next block's are made.

        Those of the embeddings, of which the head has its share, come last.
        """
        layers = self._layers(seed)
        head = {name: self._weights[name] for name in ("model/ln_f/g", "model/ln_f/b", "model/wte")}
        x = self._embedded(tokens, seed)  # (batch, window, embed)
        inputs = []
        for weights, block_seed in layers:
            inputs.append(x)
            x = self._forward(x, weights, block_seed)
        value, upstream, found = self._head(x, head, targets, scale)
        of_wte = found.pop("model/wte", None)
        before = take(found)
        for layer in reversed(range(len(layers))):
            (upstream,) = xla_clusters.later([upstream], before)
            upstream, found = self._backward(inputs.pop(), *layers[layer], upstream)
            before = take({f"model/h{layer}/{name}": found[name] for name in found})
        if of_wte is not None:
            (upstream,) = xla_clusters.later([upstream], before)
            take(self._embed_back(tokens, seed, upstream, of_wte))
        return value

    def _block_gradients(self, x: Any, weights: Weights, seed: Any, upstream: Any) -> Any:
        place = "model/h0/"
        trained = {n: w for n, w in weights.items() if place + n in self._trained}
        (x,) = xla_clusters.later([x], upstream)
        with tf.GradientTape() as tape:
            tape.watch([x, trained])
            result = self._block(x, weights, seed)
        return tape.gradient(result, [x, trained], upstream)

    def _head_gradients(self, x: Any, weights: Weights, targets: Any, scale: Any) -> Any:
        trained = {name: weights[name] for name in weights if name in self._trained}
        with tf.GradientTape() as tape:
            tape.watch([x, trained])
            hidden = gpt2.norm(x, weights, "model/ln_f")
            value = self._loss(hidden, weights["model/wte"], targets, scale)
        upstream, gradients = tape.gradient(value, [x, trained])
        return value, upstream, gradients


def rows_added(matrix: Any, places: Any, rows: Any) -> Any:
    """Returns a matrix with rows added to its own; it is used up.

    Args:
        matrix: (many, width).
        places: int32 (some,), which of its rows; some may recur.
        rows: (some, width).
    """
    if xla_clusters.are_apart() and not xla_clusters.on_gpu():
        # On a CPU TensorFlow's scattering copies the matrix even where nobody else needs it.
        return tf.raw_ops.InplaceAdd(x=matrix, i=places, v=rows)
    return tf.tensor_scatter_nd_add(matrix, places[:, None], rows)
