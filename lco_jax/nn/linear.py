"""Linear maps between named dimensions, with an optional low-rank branch; token embeddings."""

import functools
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float, Int

from lco_jax.config import Lora
from lco_jax.nn.stack import keep
from lco_jax.runtime.axes import act_spec, mesh_platform, weight_spec

_INIT_STD = 0.02
_TENSOR = "tensor"
tensor_sums = jax.make_user_context("float32")
"""As `MeshConfig.tensor_sums`: a context around what is traced, to which JAX's caches pay heed."""


def normal(
    rngs: nnx.Rngs | None, letters: str, sizes: Mapping[str, int], dtype: jnp.dtype
) -> Array:
    """A random weight whose dimensions are `letters`, sharded by them; without `rngs` zeros, of a
    model of which only the shapes are asked for.
    """
    if rngs is None:
        return zeros(letters, sizes, dtype)
    shape = tuple(sizes[letter] for letter in letters.split())
    values = jax.random.normal(rngs.params(), shape, out_sharding=weight_spec(letters))
    return (_INIT_STD * values).astype(dtype)


def zeros(letters: str, sizes: Mapping[str, int], dtype: jnp.dtype) -> Array:
    """A weight of zeros whose dimensions are `letters`, sharded by them."""
    shape = tuple(sizes[letter] for letter in letters.split())
    return jnp.zeros(shape, dtype, out_sharding=weight_spec(letters))


def dot(equation: str, x: Array, y: Array) -> Float[Array, "*out"]:
    """`einsum(equation, x, y)`, summed and given in float32."""
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)


def in_order(x: Float[Array, "*x"]) -> Float[Array, "*x"]:
    """`x`, which on TPUs lies in memory in the order of its dimensions, and so does its gradient.

    The products of low-rank factors would rather have tokens last: left alone, the compiler copies
    all that a feed-forward map keeps for the backward pass, an eighth of the traffic of a layer.
    """
    if mesh_platform() != "tpu":
        return x
    # Each device orders its own part: asked for the order of the whole, the compiler would bring
    # the parts together on every device.
    spec, order = jax.typeof(x).sharding.spec, Layout(tuple(range(x.ndim)))
    own = jax.shard_map(
        lambda part: with_layout_constraint(part, order), in_specs=spec, out_specs=spec
    )
    return own(x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def contract(
    x: Float[Array, "*x"],
    weight: Float[Array, "*w"],
    equation: str,
    dtype: jnp.dtype | None = None,
) -> Float[Array, "*y"]:
    """`einsum(equation, x, weight)` in `dtype` (None: that of `x`), summed in float32 in both
    directions (over `tensor`: see `tensor_sums`).

    The result keeps the sharding of the dimensions that `x` brings and has that of the
    activations for the rest. Only with float32 sums do bfloat16 products stay bfloat16 on CPU,
    and only with a cotangent cast back to the operands' dtype does the backward pass, too.
    """
    x_letters, _, y_letters = _letters(equation)
    own = dict(zip(x_letters, jax.typeof(x).sharding.spec, strict=True))
    fresh = dict(zip(y_letters, act_spec(" ".join(y_letters)), strict=True))
    spec = jax.P(*(own.get(letter, fresh[letter]) for letter in y_letters))
    return _einsum(equation, x, weight, spec).astype(dtype or x.dtype)


def _einsum(equation: str, x: Array, y: Array, spec: jax.P) -> Float[Array, "*y"]:
    y, (x_letters, _, out_letters) = y.astype(x.dtype), _letters(equation)
    split = zip(x_letters, jax.typeof(x).sharding.spec, strict=True)
    crosses = any(axis == _TENSOR and letter not in out_letters for letter, axis in split)
    sums = _sums_dtype(x) if crosses else jnp.float32
    return jnp.einsum(equation, x, y, out_sharding=spec, preferred_element_type=sums)


def _sums_dtype(x: Array) -> jnp.dtype:
    """In what products of `x` are added up over `tensor`; on a device it is always float32."""
    return x.dtype if tensor_sums.value == "bfloat16" else jnp.dtype(jnp.float32)


def _contract_fwd(x, weight, equation, dtype):
    return contract(x, weight, equation, dtype), (x, weight)


def _contract_bwd(equation, dtype, residuals, cotangent):
    del dtype
    x, weight = residuals
    cotangent = cotangent.astype(x.dtype)
    x_letters, w_letters, y_letters = _letters(equation)
    to_x = f"{y_letters},{w_letters}->{x_letters}"
    grad_x = _einsum(to_x, cotangent, weight, jax.typeof(x).sharding.spec)
    return grad_x.astype(x.dtype), _grad_weight(equation, x, weight, cotangent)


def _grad_weight(equation: str, x: Array, weight: Array, cotangent: Array) -> Float[Array, "*w"]:
    x_letters, w_letters, y_letters = _letters(equation)
    spec = jax.typeof(weight).sharding.spec
    # The order of the operands is that of the weight's dimensions, so no result is transposed.
    if w_letters[0] in x_letters:
        gradient = _einsum(f"{x_letters},{y_letters}->{w_letters}", x, cotangent, spec)
    else:
        gradient = _einsum(f"{y_letters},{x_letters}->{w_letters}", cotangent, x, spec)
    return gradient.astype(weight.dtype)


def _letters(equation: str) -> list[str]:
    return equation.replace("->", ",").split(",")


contract.defvjp(_contract_fwd, _contract_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def contract_each(
    x: Float[Array, "*x"], weights: tuple[Float[Array, "..."], ...], equations: tuple[str, ...]
) -> tuple[Float[Array, "..."], ...]:
    """`contract` of one input with several weights whose outputs are divided over `tensor`.

    Each device adds up what all of them say of the gradient of `x` before the devices do: there is
    one sum over `tensor` instead of one a weight.
    """
    return tuple(map(functools.partial(contract, x), weights, equations))


def _contract_each_fwd(x, weights, equations):
    return contract_each(x, weights, equations), (x, weights)


def _contract_each_bwd(equations, residuals, cotangents):
    x, weights = residuals
    cotangents = tuple(cotangent.astype(x.dtype) for cotangent in cotangents)
    letters = [_letters(equation) for equation in equations]
    # Moves the parts of the weights over `fsdp`, as the forward pass does.
    whole = tuple(
        jax.reshard(weight, act_spec(" ".join(w))).astype(x.dtype)
        for weight, (_, w, _) in zip(weights, letters, strict=True)
    )

    def on_device(cotangents, weights) -> Float[Array, "*x"]:
        parts = (
            dot(f"{y_letters},{w_letters}->{x_letters}", cotangent, weight)
            for cotangent, weight, (x_letters, w_letters, y_letters) in zip(
                cotangents, weights, letters, strict=True
            )
        )
        return jax.lax.psum(sum(parts).astype(_sums_dtype(x)), _TENSOR).astype(x.dtype)

    specs = jax.tree.map(lambda x: jax.typeof(x).sharding.spec, (cotangents, whole))
    grad_x = jax.shard_map(on_device, in_specs=specs, out_specs=jax.typeof(x).sharding.spec)(
        cotangents, whole
    )
    return grad_x, tuple(
        _grad_weight(equation, x, weight, cotangent)
        for equation, weight, cotangent in zip(equations, weights, cotangents, strict=True)
    )


contract_each.defvjp(_contract_each_fwd, _contract_each_bwd)


def _lora_init(rngs: nnx.Rngs | None, letters: str, sizes: Mapping[str, int]) -> Array:
    if rngs is None:
        return zeros(letters, sizes, jnp.float32)
    # The bound of peft's default initialisation (Kaiming uniform with a = sqrt(5)).
    shape = tuple(sizes[letter] for letter in letters.split())
    bound = math.prod(shape[1:]) ** -0.5
    values = jax.random.uniform(
        rngs.params(), shape, minval=-bound, maxval=bound, out_sharding=weight_spec(letters)
    )
    return values.astype(jnp.float32)


class Linear(nnx.Module):
    """y = x W (+ b) (+ alpha / rank · (x A) B).

    `layout` names the dimensions, e.g. `"D -> N H"`. The low-rank branch is applied to the
    activations and never merged into W, so a frozen W has no gradient matrix.
    """

    def __init__(
        self,
        layout: str,
        sizes: Mapping[str, int],
        *,
        use_bias: bool = False,
        lora: Lora | None = None,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.inputs, self.outputs = (side.strip() for side in layout.split("->"))
        self.kernel = nnx.Param(normal(rngs, f"{self.inputs} {self.outputs}", sizes, dtype))
        self.bias = nnx.data(None)
        self.lora_a = nnx.data(None)
        self.lora_b = nnx.data(None)
        self.lora_scale = 0.0
        if use_bias:
            self.bias = nnx.Param(zeros(self.outputs, sizes, dtype))
        if lora is not None:
            sizes = {**sizes, "R": lora.rank}
            self.lora_a = nnx.LoRAParam(_lora_init(rngs, f"R {self.inputs}", sizes))
            self.lora_b = nnx.LoRAParam(zeros(f"R {self.outputs}", sizes, jnp.float32))
            self.lora_scale = lora.alpha / lora.rank

    def __call__(
        self, x: Float[Array, "B S *inputs"], lora_x: Float[Array, "B S *inputs"] | None = None
    ) -> Float[Array, "B S *outputs"]:
        """Map `x`; the low-rank branch reads `lora_x` (`x` after dropout) where it is given."""
        return apply_all([self], x, lora_x)[0]

    @property
    def equation(self) -> str:
        """That of its product."""
        inputs, outputs = self.inputs.replace(" ", ""), self.outputs.replace(" ", "")
        return f"BS{inputs},{inputs}{outputs}->BS{outputs}"

    def _complete(
        self, y: Float[Array, "B S *outputs"], low: Float[Array, "B S R"] | None
    ) -> Float[Array, "B S *outputs"]:
        outputs = self.outputs.replace(" ", "")
        if self.bias is not None:
            # Moves the values of a bias over D, whose dimension activations do not shard.
            bias = jax.reshard(self.bias[...], jax.P(*jax.typeof(y).sharding.spec[2:]))
            y = y + bias.astype(y.dtype)
        if low is not None:
            y = y + contract(
                self.lora_scale * low, self.lora_b[...], f"BSR,R{outputs}->BS{outputs}"
            )
            # Heads are turned to the front for attention, for which the compiler lays them out.
            # Without factors there is nothing to gain.
            y = y if " " in self.outputs else in_order(y)
        return keep(y)


def apply_all(
    linears: Sequence[Linear],
    x: Float[Array, "B S *inputs"],
    lora_x: Float[Array, "B S *inputs"] | None = None,
) -> list[Float[Array, "B S *outputs"]]:
    """What several maps make of one input. Their low-rank branches read it in one product."""
    kernels = tuple(linear.kernel[...] for linear in linears)
    equations = tuple(linear.equation for linear in linears)
    if len(linears) > 1 and jax.sharding.get_abstract_mesh().shape[_TENSOR] > 1:
        products = contract_each(x, kernels, equations)
    else:
        products = tuple(map(functools.partial(contract, x), kernels, equations))
    factors = [linear.lora_a[...] for linear in linears if linear.lora_a is not None]
    lows = iter(())
    if factors:
        inputs = linears[0].inputs.replace(" ", "")
        lora_x = x if lora_x is None else lora_x
        low = contract(lora_x, jnp.concatenate(factors), f"BS{inputs},R{inputs}->BSR")
        low = keep(in_order(low))
        lows = iter(jnp.split(low, len(factors), axis=-1))
    return [
        linear._complete(y, None if linear.lora_a is None else next(lows))
        for linear, y in zip(linears, products, strict=True)
    ]


class Embedding(nnx.Module):
    """A table of token vectors."""

    def __init__(self, sizes: Mapping[str, int], *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.table = nnx.Param(normal(rngs, "V D", sizes, dtype))

    def __call__(self, tokens: Int[Array, "B S"]) -> Float[Array, "B S D"]:
        spec = jax.P(*jax.typeof(tokens).sharding.spec, None)
        return self.table[...].at[tokens].get(out_sharding=spec)
