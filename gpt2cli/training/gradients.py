"""Loss and gradients: with all activations stored, or with blocks computed again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable
from typing import Any

import tensorflow as tf

from gpt2cli.arrays import Tensor, Weights
from gpt2cli.hparams import HParams
from gpt2cli.network import gpt2, loss, xla_clusters
from gpt2cli.network.compiling import CompileMode, compile_block, compile_function
from gpt2cli.training.backend import TrainingOptions

Gradients = dict[str, Tensor]
# Receives gradients by name as soon as they are known, and half the sum of their squares if that is
# known too; returns the operations on them that must run before the next ones are computed.
Consume = Callable[[Gradients, Tensor], list[Tensor]]


class GradientFunction:
    """Computes the loss and the gradients of the weights that are trained."""

    def __init__(
        self, weights: Weights, hparams: HParams, trained: Collection[str], options: TrainingOptions
    ) -> None:
        """Takes variables by OpenAI's names, and the names of those whose gradients are wanted."""
        self._weights, self._hparams, self._trained = weights, hparams, trained
        self._backend, self._recompute = options.backend, options.recompute
        self._dropout = options.dropout
        # On a GPU each operation is a launch: a block's program sums its gradients' squares too.
        self._squares = self._backend.mode is CompileMode.BLOCKS and options.accumulate == 1
        self._precision = tf.as_dtype(options.precision)
        self._compile_parts()

    def _compile_parts(self) -> None:
        raise NotImplementedError

    def __call__(
        self, tokens: Tensor, targets: Tensor, seed: Tensor, scale: Tensor, consume: Consume
    ) -> Tensor:
        """Returns the mean loss (nats per token), a scalar; hands the gradients to `consume`.

        Tokens and targets, which follow them, are int32 (batch, window); negative targets do not
        count. The seed is the dropout's, int32 (2,), and the scale a scalar that the gradients are
        multiplied by; `consume` receives that of each trained weight once.
        """
        raise NotImplementedError

    def _compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return compile_function(function, self._backend.mode, gpu=self._backend.gpu)

    def _layers(self, seed: Tensor) -> list[tuple[Weights, Tensor]]:
        """Returns each block's weights, and the seed of its dropout, which has two places."""
        blocks = [gpt2.block_weights(self._weights, n) for n in range(self._hparams.n_layer)]
        dropout = gpt2.Dropout(self._dropout, seed)
        return [(block, dropout.at(2 * n + 1).seed) for n, block in enumerate(blocks)]

    def _block(self, x: Tensor, weights: Weights, seed: Tensor) -> Tensor:
        dropout = gpt2.Dropout(self._dropout, seed)
        attend = self._backend.attention(recompute=self._recompute)
        return gpt2.block(x, weights, self._hparams.n_head, attend, dropout)

    def _loss(self, x: Tensor, weights: Weights, targets: Tensor, scale: Tensor) -> Tensor:
        """Returns the mean loss of what the last block gives; its gradient is scaled."""
        hidden = gpt2.norm(x, weights, "model/ln_f")  # (batch, window, embed)
        rows = tf.reshape(hidden, [-1, hidden.shape[-1]])  # (batch * window, embed)
        at_once = self._backend.loss_rows(recompute=self._recompute)
        flat = tf.reshape(targets, [-1])  # (batch * window,)
        return loss.next_token_loss(rows, weights["model/wte"], flat, scale, at_once)

    def _embed(self, tokens: Tensor, seed: Tensor) -> Tensor:
        dropout = gpt2.Dropout(self._dropout, seed)
        return gpt2.embed(self._weights, tokens, dropout=dropout, precision=self._precision)

    def _embedding_gradients(
        self, tokens: Tensor, seed: Tensor, upstream: Tensor, wte_gradient: Tensor
    ) -> Gradients:
        """Returns the embeddings' gradients.

        `upstream` is the gradient of what `_embed` returned for the tokens, (batch, window, embed),
        and `wte_gradient`, (vocab, embed), that of wte as the output layer; it is used up.
        """
        upstream = tf.cast(upstream, tf.float32)
        if self._dropout:
            upstream = gpt2.Dropout(self._dropout, seed)(upstream)
        rows = tf.reshape(upstream, [-1, self._hparams.n_embd])  # (batch * window, embed)
        wte_gradient = scatter_add(wte_gradient, tf.reshape(tokens, [-1]), rows)
        unused = self._hparams.n_ctx - tokens.shape[1]
        wpe_gradient = tf.pad(tf.reduce_sum(upstream, axis=0), [[0, unused], [0, 0]])
        return {"model/wte": wte_gradient, "model/wpe": wpe_gradient}  # (n_ctx, embed)


class StoredActivations(GradientFunction):
    """Keeps all activations for the backward pass: the fastest, and takes most memory."""

    def _compile_parts(self) -> None:
        self._compiled = self._compile(self._loss_and_gradients)
        # All blocks are alike: traced once, forward and back, each is only a call. But XLA takes a
        # call's inputs, the weights too, for constants, and compiles again whenever they change.
        whole = self._backend.mode is CompileMode.FULL
        self._layer = self._block if whole else tf.function(self._block, autograph=False)

    def __call__(
        self, tokens: Tensor, targets: Tensor, seed: Tensor, scale: Tensor, consume: Consume
    ) -> Tensor:
        """Returns the mean loss; hands over all gradients together."""
        value, gradients = self._compiled(tokens, targets, seed, scale)
        consume(gradients, None)
        return value

    def _loss_and_gradients(
        self, tokens: Tensor, targets: Tensor, seed: Tensor, scale: Tensor
    ) -> tuple[Tensor, Gradients]:
        trained = {n: self._weights[n] for n in self._trained if n != "model/wpe"}
        x = self._embed(tokens, seed)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = x
            for weights, block_seed in self._layers(seed):
                tensors = {name: tf.convert_to_tensor(weight) for name, weight in weights.items()}
                y = self._layer(y, tensors, block_seed)
            value = self._loss(y, self._weights, targets, scale)
        upstream, gradients = tape.gradient(value, [x, trained])
        if "model/wpe" in self._trained:
            gradients |= self._embedding_gradients(tokens, seed, upstream, gradients["model/wte"])
        return value, {name: gradients[name] for name in self._trained}


class RecomputedBlocks(GradientFunction):
    """Computes each block again in the backward pass: to save memory, or a GPU's launches.

    In the first case it keeps only the block's input (gradient checkpointing, Chen et al. 2016),
    else what is costly too: products and attention. One block is compiled once and called for every
    layer, so that the program is short.
    """

    def _compile_parts(self) -> None:
        of_block = functools.partial(compile_block, mode=self._backend.mode, gpu=self._backend.gpu)
        self._forward, self._backward = map(of_block, (self._block_forward, self._block_gradients))
        self._head = self._compile(self._head_gradients)
        self._embed_forward = self._compile(self._embed)
        self._embed_backward = self._compile(self._embedding_gradients)
        # XLA's program would hold the largest gradient twice, but only XLA drops the same
        # activations again that it dropped in the forward pass.
        if self._backend.mode is CompileMode.FULL and not self._dropout:
            self._embed_backward = self._embedding_gradients

    def __call__(
        self, tokens: Tensor, targets: Tensor, seed: Tensor, scale: Tensor, consume: Consume
    ) -> Tensor:
        """Returns the mean loss; hands over each block's gradients before it computes the next.

        Those of the embeddings, to which the output layer contributes, come last.
        """
        layers = self._layers(seed)
        head = {name: self._weights[name] for name in ("model/ln_f/g", "model/ln_f/b", "model/wte")}
        x = self._embed_forward(tokens, seed)  # (batch, window, embed)
        inputs = []
        for weights, block_seed in layers:
            found, kept = self._forward(x, weights, block_seed)
            inputs.append((x, kept))
            x = found
        value, upstream, gradients = self._head(x, head, targets, scale)
        wte_gradient = gradients.pop("model/wte", None)
        before = consume(gradients, None)
        for layer in reversed(range(len(layers))):
            (upstream,) = xla_clusters.with_dependencies([upstream], before)
            upstream, found, squares = self._backward(*inputs.pop(), *layers[layer], upstream)
            before = consume({f"model/h{layer}/{name}": found[name] for name in found}, squares)
        if wte_gradient is not None:
            (upstream,) = xla_clusters.with_dependencies([upstream], before)
            consume(self._embed_backward(tokens, seed, upstream, wte_gradient), None)
        return value

    def _block_forward(
        self, x: Tensor, weights: Weights, seed: Tensor
    ) -> tuple[Tensor, list[list[Tensor]]]:
        """Returns what a block computes, and what it keeps."""
        with xla_clusters.keeping() as kept:
            found = self._block(x, weights, seed)
        # No gradient needs the last product.
        return found, [] if self._recompute else kept[:-1]

    def _block_gradients(
        self, x: Tensor, kept: list[list[Tensor]], weights: Weights, seed: Tensor, upstream: Tensor
    ) -> tuple[Tensor, Gradients, Tensor]:
        place = "model/h0/"
        trained = {n: w for n, w in weights.items() if place + n in self._trained}
        (x,) = xla_clusters.with_dependencies([x], upstream)
        with xla_clusters.replaying(kept), tf.GradientTape() as tape:
            tape.watch([x, trained])
            result = self._block(x, weights, seed)
        x_gradient, gradients = tape.gradient(result, [x, trained], upstream)
        squares = half_squares(gradients.values()) if self._squares else None
        return x_gradient, gradients, squares

    def _head_gradients(
        self, x: Tensor, weights: Weights, targets: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor, Gradients]:
        trained = {name: weights[name] for name in weights if name in self._trained}
        with tf.GradientTape() as tape:
            tape.watch([x, trained])
            value = self._loss(x, weights, targets, scale)
        upstream, gradients = tape.gradient(value, [x, trained])
        return value, upstream, gradients


def half_squares(gradients: Iterable[Tensor]) -> Tensor:
    """Returns half the sum of all squares, a scalar."""
    return tf.add_n([tf.nn.l2_loss(gradient) for gradient in gradients])


def scatter_add(matrix: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
    """Returns a matrix (many, width) with rows (some, width) added to some of its own.

    The indices, int32 (some,), say to which; one may recur. The matrix is used up.
    """
    if xla_clusters.is_clustering("cpu"):
        # TensorFlow's scatter on a CPU copies the matrix even if nobody else needs it.
        return tf.raw_ops.InplaceAdd(x=matrix, i=indices, v=rows)
    return scatter_nd_add(matrix, indices, rows)


@xla_clusters.cluster
def scatter_nd_add(matrix: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
    """Returns what `scatter_add` does. On a GPU TensorFlow's own takes a thread a row, and long."""
    return tf.tensor_scatter_nd_add(matrix, indices[:, None], rows)
