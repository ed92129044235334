"""Every mechanism of the catalogue as a `keras.Layer` class.

Made by tools/stubs.py: run it after a change of options.
"""

from typing import Any, Literal, overload

from foveate.bind.keras.attention import Attention as Attention
from foveate.bind.keras.parts import DataFormat
from foveate.bind.keras.parts import Gate as Gate
from foveate.data.boxes.keras_batches import BoxBatches as BoxBatches
from foveate.gates.record_keras import record as record
from foveate.keras.attend import Attend as Attend
from foveate.models.keras_detector import Detector as Detector
from foveate.models.keras_yolov4_tiny import yolov4_tiny as yolov4_tiny
from foveate.parts import Start
from foveate.spec import Mechanism
from foveate.surgery.keras.attaching import attach as attach
from foveate.surgery.keras.attaching import detach as detach
from foveate.surgery.keras.attaching import load_adapter as load_adapter
from foveate.surgery.keras.attaching import plan as plan
from foveate.surgery.keras.attaching import save_adapter as save_adapter

__all__ = [
    "BAM",
    "CAA",
    "CBAM",
    "CPCA",
    "ECA",
    "ELA",
    "EMA",
    "ESA",
    "GCT",
    "LCT",
    "MLCA",
    "MSCA",
    "NAM",
    "SCSA",
    "SCSE",
    "SE",
    "SK",
    "SMFA",
    "SRM",
    "Attend",
    "Attention",
    "AttentionGate",
    "BoxBatches",
    "ChannelAttention",
    "CoTAttention",
    "ContrastAttention",
    "CoordinateAttention",
    "CrissCrossAttention",
    "CrossAttention",
    "DANet",
    "Detector",
    "DoubleAttention",
    "EffectiveSE",
    "Fca",
    "Gate",
    "GatherExcite",
    "GlobalContext",
    "LargeKernelAttention",
    "NonLocal",
    "ParNet",
    "PolarizedAttention",
    "ResidualCBAM",
    "ShuffleAttention",
    "SimAM",
    "SpatialAttention",
    "StripPooling",
    "TripletAttention",
    "attach",
    "attention",
    "detach",
    "load_adapter",
    "plan",
    "record",
    "save_adapter",
    "yolov4_tiny",
]

class AttentionGate(Attention):
    """y = BN(W (a x)), a = sigmoid(psi(relu(theta(x) + phi(g)))); (N, C, H, W), (N, D, H', W') -> (N, C, H, W).

    The context g is the coarser map, by default x itself. theta is a convolution of size and stride `stride` to
    `inner_channels` (default C // 2). As in the paper's equations, `transform=False` returns a x. The released gate for
    classification is stride=1, transform=False, context_bias=False, scores="mean_flow": shares of the positions, from
    the smallest score on. "softmax" takes other shares.
    """

    def __init__(
        self,
        *,
        context_channels: int | None = None,
        inner_channels: int | None = None,
        stride: int = 2,
        activation: Literal["relu", "softplus"] = "relu",
        scores: Literal["sigmoid", "softmax", "mean_flow"] = "sigmoid",
        transform: bool = True,
        context_bias: bool = True,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, context: Any = None, *, training: bool | None = None) -> Any: ...

class BAM(Attention):
    """y = x * (1 + sigmoid(Mc(x) * Ms(x))): a channel and a spatial branch in one gate; (N, C, H, W) -> (N, C, H, W).

    `combine="sum"` is the paper's equation 2, Mc(x) + Ms(x); the released code and its weights have the product. The
    released code averages square maps only. Here the mean is over the whole map. In training, the norm of the channel
    branch has one value per sample, so that a batch needs two.
    """

    def __init__(
        self,
        *,
        reduction: float = 16,
        dilation: int = 4,
        combine: Literal["product", "sum"] = "product",
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class CAA(Attention):
    """y = x * sigmoid(P2(column(row(P1(mean of 7 x 7 positions))))); (N, C, H, W) -> (N, C, H, W).

    Row and column are depthwise strips. P1 and P2 are 1x1 convolutions, each with a batch norm and a SiLU, as the
    released class does by default. The released networks leave both out, `norm=False`, and read the gate from another
    map than the one that it scales.
    """

    def __init__(
        self,
        *,
        row_kernel: int = 11,
        column_kernel: int = 11,
        norm: bool = True,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class CBAM(Attention):
    """y = Ms(x') * x' with x' = Mc(x) * x; (N, C, H, W) -> (N, C, H, W).

    `order` is the arrangement of the two gates (section 4.1 of the paper); in "parallel" both gates read x. The
    defaults follow the released code: biases in the channel MLP, [max, mean] maps and a batch norm in the spatial gate.
    The paper's equations show none of these.
    """

    def __init__(
        self,
        *,
        reduction: float = 16,
        bias: bool = True,
        pools: tuple[Literal["avg", "max", "lp", "lse"], ...] = ("avg", "max"),
        kernel_size: int = 7,
        norm: bool = True,
        spatial_bias: bool = False,
        order: Literal["channel-spatial", "spatial-channel", "parallel"] = "channel-spatial",
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class ChannelAttention(Attention):
    """y = x * sigmoid(sum over pools of MLP(pool_hw(x))), the MLP shared by the pools; (N, C, H, W) -> (N, C, H, W).

    The paper's equation 2 shows no biases; the released code has them. "lp" is sqrt(sum x^2), "lse" log(sum exp x).
    """

    def __init__(
        self,
        *,
        reduction: float = 16,
        bias: bool = True,
        pools: tuple[Literal["avg", "max", "lp", "lse"], ...] = ("avg", "max"),
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class ContrastAttention(Attention):
    """y = x * sigmoid(W2 relu(W1 (std_hw(x) + mean_hw(x)))), one gate per channel; (N, C, H, W) -> (N, C, H, W).

    The standard deviation is that of all positions, without a small number below its root. A constant channel has the
    gradient 0 there, where the released code has NaN.
    """

    def __init__(
        self,
        *,
        reduction: float = 16,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class CoordinateAttention(Attention):
    """y = x * a_w * a_h: one gate per row and one per column, from one shared squeeze; (N, C, H, W) -> (N, C, H, W).

    The paper leaves the non-linearity open; the released code uses hard-swish. The batch norm computes its statistics
    over all H + W positions.
    """

    def __init__(
        self,
        *,
        reduction: float = 32,
        min_hidden: int = 8,
        bias: bool = True,
        activation: Literal["hardswish", "relu"] = "hardswish",
        eps: float = 1e-05,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class CoTAttention(Attention):
    """y = a0 * local + a1 * keys, with a0 + a1 = 1 for each channel; (N, C, H, W) -> (N, C, H, W).

    keys = relu(norm(conv k x k of x)), the static context. local is the values of the k x k neighbours, weighted at
    each position by what two 1x1 convolutions make of x and keys; C / 8 sets of weights serve all channels. a0 comes
    from the mean of local + keys, as in SK units. `grouped` is the form for ResNeXt (CoXt).
    """

    def __init__(
        self,
        *,
        kernel_size: int = 3,
        grouped: bool = False,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class CPCA(Attention):
    """y = P(v * P(s(v))), v = u * (sigmoid(M mean(u)) + sigmoid(M max(u))), u = gelu(P(x)); keeps (N, C, H, W).

    M is a shared MLP of 1x1 convolutions, s the depthwise convolutions of MSCA. In the released code, P is one and the
    same 1x1 convolution, used three times, and no sigmoid follows s.
    """

    def __init__(
        self,
        *,
        reduction: float = 4,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class CrissCrossAttention(Attention):
    """y = x + gamma * sum_i softmax_i(q k_i) v_i over the H + W - 1 positions i in the own row and column.

    (N, C, H, W) -> (N, C, H, W). The logits have no scale, and gamma is 0 at first, as in the released code. The
    network of the paper runs the module twice with the same weights, so that every position sees all others:
    `recurrence=2`.
    """

    def __init__(
        self,
        *,
        reduction: float = 8,
        recurrence: int = 1,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class CrossAttention(Attention):
    """y = context + softmax(q k^T / sqrt(dim)) v, with queries q from the context, and keys k and values v from x.

    (N, C, H, W), (N, D, H', W') -> (N, D, H', W'). Without a context, x attends to itself. `dim` is the width of
    queries and keys (default C). As in the listing that this comes from, `activation="relu"` can follow each linear map
    and `scale=False` drops the 1/sqrt(dim).
    """

    def __init__(
        self,
        *,
        context_channels: int | None = None,
        dim: int | None = None,
        activation: Literal["relu"] | None = None,
        scale: bool = True,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, context: Any = None, *, training: bool | None = None) -> Any: ...

class DANet(Attention):
    """y = x + gamma * attention of positions, or of channels, to each other; (N, C, H, W) -> (N, C, H, W).

    "positions" is softmax(q k^T) v without a scale. "channels" is softmax(-X X^T) X without weights: the more similar a
    channel, the less it counts. (The released code subtracts X X^T from its greatest value, which is the same.) gamma
    is one number, which begins at 0. DANet adds the two modules' outputs, each behind its own convolution.
    """

    def __init__(
        self,
        *,
        pairs: Literal["positions", "channels"] = "positions",
        reduction: float = 8,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class DoubleAttention(Attention):
    """y = W (A softmax_hw(B)^T) softmax_c(V): gather c_n descriptors, then distribute them; (N, C, H, W) in and out.

    A has `c_m` channels, B and V have `c_n`; None is C // 4, as in the paper. The paper adds x: `residual=True`. The
    code that people use leaves that to the caller. `reconstruct=False` leaves out W and returns c_m channels.
    """

    def __init__(
        self,
        *,
        c_m: int | None = None,
        c_n: int | None = None,
        reconstruct: bool = True,
        residual: bool = False,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class ECA(Attention):
    """y = x * sigmoid(conv over channels of mean_hw(x)), k weights in all; (N, C, H, W) -> (N, C, H, W).

    `kernel_size=None` computes the paper's adaptive size; as in its code (figure 3), an even size is rounded up. The
    released networks set k for each stage instead: 3, 5, 5, 7 for ResNet-50.
    """

    def __init__(
        self,
        *,
        kernel_size: int | None = None,
        gamma: float = 2,
        beta: float = 1,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class ELA(Attention):
    """y = x * sigmoid(norm(conv(mean_w(x)))) * sigmoid(norm(conv(mean_h(x)))); (N, C, H, W) -> (N, C, H, W).

    The authors released no code. As in the listing that people copy, rows and columns share the convolution and the
    norm; the paper's equations and timm have one for each (`shared=False`). timm also has 1 group in the norms and a
    SiLU after them. `groups` are those of the convolution, None for one per channel. The paper's versions: tiny with
    kernel 5 and 32 groups in the norm, base as here, small with kernel 5 and large with 7, both with C / 8 groups.
    """

    def __init__(
        self,
        *,
        kernel_size: int = 7,
        groups: int | None = None,
        norm_groups: int = 16,
        shared: bool = True,
        bias: bool = False,
        activation: Literal["silu"] | None = None,
        skip: bool = False,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class EMA(Attention):
    """y = x * sigmoid(w1 x2 + w2 x1), one gate per position and group of channels; (N, C, H, W) -> (N, C, H, W).

    All groups share the weights. x1 is the normalised group after gates of its rows and columns, x2 its 3x3
    convolution. w1 and w2 are the softmax over channels of the means of x1 and x2. After the norm the mean of x1 is the
    norm's bias, so that w1 does not depend on x: so it is in the released code too. `factor` is the number of groups.
    """

    def __init__(
        self,
        *,
        factor: int = 32,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class ESA(Attention):
    """y = x * sigmoid(W4 (resize(coarse(z)) + Wf z)), z = W1 x of C / reduction channels; (N, C, H, W) -> (N, C, H, W).

    `coarse` is a convolution of stride 2, a maximum of 7 x 7 positions with stride 3, and more convolutions. `form`
    says which: "rfanet" has three and ReLUs, "rlfn" one (there z has `hidden=16` channels), "bsrn" three separable ones
    and GELUs, "rlcsr" three with SiLUs, each added to its input. The smallest map is 15 x 15.
    """

    def __init__(
        self,
        *,
        reduction: float = 4,
        hidden: int | None = None,
        form: Literal["rfanet", "rlfn", "bsrn", "rlcsr"] = "rfanet",
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class EffectiveSE(Attention):
    """y = x * hard_sigmoid(W mean_hw(x) + b), with relu6(z + 3) / 6; (N, C, H, W) -> (N, C, H, W).

    W has C^2 weights. The gradient of the released code's hard sigmoid is 0 where |z| > 3; the paper writes a sigmoid.
    """

    def __init__(
        self,
        *,
        activation: Literal["hard_sigmoid", "sigmoid"] = "hard_sigmoid",
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class Fca(Attention):
    """y = x * sigmoid(W2 relu(W1 f)), one gate per channel; (N, C, H, W) -> (N, C, H, W).

    f is the sum over positions of x, pooled to `grid`, times a cosine basis: each of the `frequencies` has its share of
    the channels, "top16" those of the 16 best. The paper's grids in ResNet-50 have 56, 28, 14 and 7 rows.
    """

    def __init__(
        self,
        *,
        reduction: float = 16,
        frequencies: str = "top16",
        grid: tuple[int, int] = (7, 7),
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class GatherExcite(Attention):
    """y = x * sigmoid(gather(x)), each gathered value repeated over its neighbourhood; (N, C, H, W) -> (N, C, H, W).

    "theta-minus" gathers by a mean, without parameters; "theta" by depthwise convolutions with norms; "theta-plus" adds
    W2 relu(W1 relu(gather(x))). With `extent=None` the neighbourhood is the whole map. A convolution over it has the
    map's `size`, (H, W), and takes no other map.
    """

    def __init__(
        self,
        *,
        variant: Literal["theta-minus", "theta", "theta-plus"] = "theta-minus",
        extent: Literal[2, 4, 8] | None = None,
        size: tuple[int, int] | None = None,
        reduction: float = 16,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class GCT(Attention):
    """y = x * (1 + tanh(gamma e / sqrt(mean_c(e^2)) + beta)) with e = alpha |x|_hw; (N, C, H, W) -> (N, C, H, W).

    With `mode="l1"` the norms are sums of absolute values; `after_relu` leaves out the absolute value for maps that are
    never negative. The paper divides by |e|_c / sqrt(C), which is the same apart from `eps`.
    """

    def __init__(
        self,
        *,
        mode: Literal["l2", "l1"] = "l2",
        after_relu: bool = False,
        eps: float = 1e-05,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class GlobalContext(Attention):
    """y = x + W2 relu(norm(W1 z)) with z = sum_hw(softmax_hw(w x) x); (N, C, H, W) -> (N, C, H, W).

    With `fusion="mul"` y = x * sigmoid(W2 relu(norm(W1 z))); "mul-add" then adds too. `pool="avg"` takes the mean for
    z. The norm runs over the C / r hidden units. At least 2 are kept, because 1 normalised value is always 0. As in the
    released code, W2 begins at 0.
    """

    def __init__(
        self,
        *,
        reduction: float = 16,
        pool: Literal["attention", "avg"] = "attention",
        fusion: Literal["add", "mul", "mul-add"] = "add",
        eps: float = 1e-05,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class LargeKernelAttention(Attention):
    """y = x * W far(near(x)), with two depthwise convolutions and no sigmoid; (N, C, H, W) -> (N, C, H, W).

    The second convolution is dilated, so that both cover `kernel_size` positions. `separable=True` is LSKA: a row, then
    a column for each kernel. `block=True` adds what is around it in the released networks, x + W2 LKA(gelu(W1 x)).
    """

    def __init__(
        self,
        *,
        kernel_size: Literal[7, 11, 23, 35, 41, 53] = 23,
        separable: bool = False,
        block: bool = False,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class LCT(Attention):
    """y = x * sigmoid(w * norm(mean_hw(x)) + b): means normalised in groups of channels; (N, C, H, W) -> (N, C, H, W).

    Each channel has one weight w and one bias b, and no channel reads another except through the statistics of its
    group. The authors released no code. As in the code that people use, w begins at 1 and b at 0.
    """

    def __init__(
        self,
        *,
        groups: int = 8,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class MLCA(Attention):
    """y = x * a, with a = (1 - w) sigmoid(conv(mean of the cells)) + w sigmoid(conv(cells)), resized to the map.

    (N, C, H, W) -> (N, C, H, W). The cells are x pooled to a grid, and both convolutions run along the channels; that
    of the cells runs on from one cell to the next. Adaptive mean pooling also resizes a. The kernel size is that of
    ECA.
    """

    def __init__(
        self,
        *,
        local_size: int = 5,
        local_weight: float = 0.5,
        gamma: float = 2,
        beta: float = 1,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class MSCA(Attention):
    """y = x * W (a + sum over k of column_k(row_k(a))), a = conv5x5(x), all depthwise; (N, C, H, W) -> (N, C, H, W).

    The scales k are 7, 11 and 21. No sigmoid follows, so that the output grows with the square of x: put a norm in
    front. `block=True` adds what is around it in the released networks, x + W2 MSCA(gelu(W1 x)).
    """

    def __init__(
        self,
        *,
        block: bool = False,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class NAM(Attention):
    """y = x * sigmoid(w z), with z = batch norm of x, gamma its scales, w = |gamma| / sum |gamma|.

    (N, C, H, W) -> (N, C, H, W). As in the released code, no gradient flows through w: gamma learns from z alone. Where
    all scales are 0, w is 0; the released code returns NaN there.
    """

    def __init__(
        self,
        *,
        momentum: float = 0.1,
        eps: float = 1e-05,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class NonLocal(Attention):
    """y = x + norm(W softmax(q k^T / sqrt(d)) v): each position reads all others; (N, C, H, W) -> (N, C, H, W).

    `similarity="dot"` has q k^T / (number of keys) in the place of the softmax. The released code pools the input of
    keys and values by 2 x 2 and scales by 1/sqrt(d). The paper's equation 6 has no scale, and a popular port pools the
    keys and values themselves. The norm begins with weights of 0, and so does W without a norm.
    """

    def __init__(
        self,
        *,
        reduction: float = 2,
        similarity: Literal["softmax", "dot"] = "softmax",
        scale: Literal["hidden", "channels", "none"] = "hidden",
        pool: Literal["input", "keys", "none"] = "input",
        norm: bool = True,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class ParNet(Attention):
    """y = act(BN(conv3x3(x)) + BN(conv1x1(x)) + z g), z = BN(x), g = sigmoid(W mean_hw(z)); (N, C, H, W) -> the same.

    Where the output has another shape, (N, out_channels, H / stride, W / stride), it is act(2 g) times the two
    convolutions with g from x. `gate_only` leaves the convolutions and the activation out: y = z g.
    """

    def __init__(
        self,
        *,
        out_channels: int | None = None,
        stride: Literal[1, 2] = 1,
        groups: int = 1,
        activation: Literal["silu", "relu"] = "silu",
        gate_only: bool = False,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class PolarizedAttention(Attention):
    """One gate per channel and one per position, each from a softmax over positions; (N, C, H, W) -> (N, C, H, W).

    "sequential" gates the channels, then the positions of the result, as in the released networks. "parallel" adds the
    two gated inputs. The released classes also differ inside the gates, so their weights do not fit each other.
    """

    def __init__(
        self,
        *,
        order: Literal["sequential", "parallel"] = "sequential",
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class ResidualCBAM(Attention):
    """y = z + CBAM(z) with z = conv3x3(x); (N, C, H, W) -> (N, out_channels, H, W).

    The block comes from a published listing, not from a paper. The identity start is x + y with a convolution of zeros,
    so it needs out_channels == C.
    """

    def __init__(
        self,
        *,
        out_channels: int | None = None,
        reduction: float = 2,
        bias: bool = True,
        pools: tuple[Literal["avg", "max", "lp", "lse"], ...] = ("avg", "max"),
        kernel_size: int = 7,
        norm: bool = False,
        spatial_bias: bool = True,
        order: Literal["channel-spatial", "spatial-channel", "parallel"] = "channel-spatial",
        conv_kernel_size: int = 3,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class SCSA(Attention):
    """x' = x * g(norm(convs(mean_w x))) * g(norm(convs(mean_h x))), y = x' * g(mean_hw(softmax(q k^T / sqrt d) v)).

    (N, C, H, W) -> (N, C, H, W). A quarter of the channels has each of the four kernel sizes, and both profiles share
    the convolutions. q, k and v are the pooled x' times a number for each channel; the softmax is over the d channels
    of a head. g is a sigmoid, or a softmax over the rows, columns or channels. The windows lie side by side, and
    rows and columns beyond the last are left out; `pool="global"` is the mean of the whole map, of any size.
    """

    def __init__(
        self,
        *,
        heads: int = 1,
        window: int = 7,
        pool: Literal["mean", "max", "global"] = "mean",
        gate: Literal["sigmoid", "softmax"] = "sigmoid",
        kernel_sizes: tuple[int, int, int, int] = (3, 5, 7, 9),
        bias: bool = False,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class SCSE(Attention):
    """y = max(x * sigmoid(W2 relu(W1 mean_hw(x))), x * sigmoid(w x)), entry by entry; (N, C, H, W) -> (N, C, H, W).

    The paper's text and most copies add the two: `mode="add"`. The modes "channel" (cSE) and "spatial" (sSE) have one.
    """

    def __init__(
        self,
        *,
        reduction: float = 2,
        mode: Literal["max", "add", "channel", "spatial"] = "max",
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class SE(Attention):
    """y = x * sigmoid(W2 relu(W1 mean_hw(x))), one gate per channel; (N, C, H, W) -> (N, C, H, W).

    The paper's equations 2 to 4 show no biases; the released Caffe networks have them, so `bias=True` is the default.
    `norm` puts a batch norm after each of the two layers, as MiniFASNet does.
    """

    def __init__(
        self,
        *,
        reduction: float = 16,
        bias: bool = True,
        norm: bool = False,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class ShuffleAttention(Attention):
    """y = channels of [a sigmoid(w1 mean_hw(a) + b1), b sigmoid(w2 norm(b) + b2)] in turn, for the halves a, b of x.

    (N, C, H, W) -> (N, C, H, W). The channels form groups, which share all weights; a and b are the halves of each
    group. Then the channels of the first and the second half of the map alternate; `shuffle=False` leaves them in
    place, and only then the output can equal the input at first.
    """

    def __init__(
        self,
        *,
        groups: int = 64,
        shuffle: bool = True,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class SimAM(Attention):
    """y = x * sigmoid(d^2 / (4 (var_hw(x) + lambda)) + 1/2) with d = x - mean_hw(x); (N, C, H, W) -> (N, C, H, W).

    The variance is divided by H W - 1, as in the released code. `e_lambda` is lambda; the authors train on ImageNet
    with 0.1. On a map of one position d and the variance are 0.
    """

    def __init__(
        self,
        *,
        e_lambda: float = 0.0001,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class SK(Attention):
    """y = sum of a_m u_m, u_m = relu(BN(conv3x3(x))) with dilation m; (N, C, H, W) -> (N, C, H, W).

    a_m is the softmax over the branches of W2 relu(BN(W1 mean_hw(sum of u_m))), one weight for each channel. As in the
    released networks, the convolutions have 32 groups. The unit replaces a convolution with its norm and ReLU.
    """

    def __init__(
        self,
        *,
        groups: int = 32,
        reduction: float = 16,
        min_hidden: int = 32,
        dilations: tuple[int, ...] = (1, 2),
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class SMFA(Attention):
    """y = W (v * resize(gelu(W' (alpha s + belt variance(v)))) + detail(u)), [u, v] = W0 x; keeps (N, C, H, W).

    s is a 3x3 convolution of the maxima of cells of about 8 x 8 positions, `detail` a 3x3 convolution and an MLP. The
    released block adds it to its input: x + SMFA(x / |x|), with the norm over the channels. The smallest map is 8 x 8.
    """

    def __init__(
        self,
        *,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class SpatialAttention(Attention):
    """y = x * sigmoid(norm(conv([max_c(x), mean_c(x)]))), one gate per position; (N, C, H, W) -> (N, C, H, W).

    The paper's equation 3 lists the mean first and has no norm; the released code puts the maximum first and adds a
    batch norm.
    """

    def __init__(
        self,
        *,
        kernel_size: int = 7,
        norm: bool = True,
        bias: bool = False,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class SRM(Attention):
    """y = x * sigmoid(norm(w1 mean_hw(x) + w2 std_hw(x))), per channel; (N, C, H, W) -> (N, C, H, W).

    The variance is divided by H W - 1, as in the released code; the paper divides by H W. On a map of one position it
    is 0. In training the batch norm needs more than one sample. The layer reads mean and deviation as two rows, as its
    published weights do, so the maps of 1-D and 3-D networks do not fit.
    """

    def __init__(
        self,
        *,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class StripPooling(Attention):
    """y = x * sigmoid(W relu(u + v)), u from the means of rows, v of columns; (N, C, H, W) -> (N, C, H, W).

    With `pools`, the module that the same paper puts into the head instead: relu of x and of convolutions of the rows,
    the columns and the means of grids of these sizes, in the paper (20, 12). Smaller maps are stretched to the grids.
    """

    def __init__(
        self,
        *,
        pools: tuple[int, ...] = (),
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

class TripletAttention(Attention):
    """y = mean over axes a of x * sigmoid(norm(conv([max_a(x), mean_a(x)]))); (N, C, H, W) -> (N, C, H, W).

    The branch `cw` pools over the rows, so that its convolution sees channels and columns; `hc` pools over the columns
    and `hw` over the channels. `spatial=False` leaves out `hw`. The norm follows the released code.
    """

    def __init__(
        self,
        *,
        kernel_size: int = 7,
        spatial: bool = True,
        start: Start = "paper",
        data_format: DataFormat | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        autocast: bool = True,
    ) -> None: ...
    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any: ...

@overload
def attention(
    mechanism: Literal["attention_gate"],
    /,
    *,
    context_channels: int | None = None,
    inner_channels: int | None = None,
    stride: int = 2,
    activation: Literal["relu", "softplus"] = "relu",
    scores: Literal["sigmoid", "softmax", "mean_flow"] = "sigmoid",
    transform: bool = True,
    context_bias: bool = True,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> AttentionGate: ...
@overload
def attention(
    mechanism: Literal["bam"],
    /,
    *,
    reduction: float = 16,
    dilation: int = 4,
    combine: Literal["product", "sum"] = "product",
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> BAM: ...
@overload
def attention(
    mechanism: Literal["caa"],
    /,
    *,
    row_kernel: int = 11,
    column_kernel: int = 11,
    norm: bool = True,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> CAA: ...
@overload
def attention(
    mechanism: Literal["cbam"],
    /,
    *,
    reduction: float = 16,
    bias: bool = True,
    pools: tuple[Literal["avg", "max", "lp", "lse"], ...] = ("avg", "max"),
    kernel_size: int = 7,
    norm: bool = True,
    spatial_bias: bool = False,
    order: Literal["channel-spatial", "spatial-channel", "parallel"] = "channel-spatial",
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> CBAM: ...
@overload
def attention(
    mechanism: Literal["channel"],
    /,
    *,
    reduction: float = 16,
    bias: bool = True,
    pools: tuple[Literal["avg", "max", "lp", "lse"], ...] = ("avg", "max"),
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> ChannelAttention: ...
@overload
def attention(
    mechanism: Literal["contrast"],
    /,
    *,
    reduction: float = 16,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> ContrastAttention: ...
@overload
def attention(
    mechanism: Literal["coordinate"],
    /,
    *,
    reduction: float = 32,
    min_hidden: int = 8,
    bias: bool = True,
    activation: Literal["hardswish", "relu"] = "hardswish",
    eps: float = 1e-05,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> CoordinateAttention: ...
@overload
def attention(
    mechanism: Literal["cot"],
    /,
    *,
    kernel_size: int = 3,
    grouped: bool = False,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> CoTAttention: ...
@overload
def attention(
    mechanism: Literal["cpca"],
    /,
    *,
    reduction: float = 4,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> CPCA: ...
@overload
def attention(
    mechanism: Literal["criss_cross"],
    /,
    *,
    reduction: float = 8,
    recurrence: int = 1,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> CrissCrossAttention: ...
@overload
def attention(
    mechanism: Literal["cross"],
    /,
    *,
    context_channels: int | None = None,
    dim: int | None = None,
    activation: Literal["relu"] | None = None,
    scale: bool = True,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> CrossAttention: ...
@overload
def attention(
    mechanism: Literal["danet"],
    /,
    *,
    pairs: Literal["positions", "channels"] = "positions",
    reduction: float = 8,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> DANet: ...
@overload
def attention(
    mechanism: Literal["double"],
    /,
    *,
    c_m: int | None = None,
    c_n: int | None = None,
    reconstruct: bool = True,
    residual: bool = False,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> DoubleAttention: ...
@overload
def attention(
    mechanism: Literal["eca"],
    /,
    *,
    kernel_size: int | None = None,
    gamma: float = 2,
    beta: float = 1,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> ECA: ...
@overload
def attention(
    mechanism: Literal["ela"],
    /,
    *,
    kernel_size: int = 7,
    groups: int | None = None,
    norm_groups: int = 16,
    shared: bool = True,
    bias: bool = False,
    activation: Literal["silu"] | None = None,
    skip: bool = False,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> ELA: ...
@overload
def attention(
    mechanism: Literal["ema"],
    /,
    *,
    factor: int = 32,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> EMA: ...
@overload
def attention(
    mechanism: Literal["esa"],
    /,
    *,
    reduction: float = 4,
    hidden: int | None = None,
    form: Literal["rfanet", "rlfn", "bsrn", "rlcsr"] = "rfanet",
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> ESA: ...
@overload
def attention(
    mechanism: Literal["ese"],
    /,
    *,
    activation: Literal["hard_sigmoid", "sigmoid"] = "hard_sigmoid",
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> EffectiveSE: ...
@overload
def attention(
    mechanism: Literal["fca"],
    /,
    *,
    reduction: float = 16,
    frequencies: str = "top16",
    grid: tuple[int, int] = (7, 7),
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> Fca: ...
@overload
def attention(
    mechanism: Literal["gather_excite"],
    /,
    *,
    variant: Literal["theta-minus", "theta", "theta-plus"] = "theta-minus",
    extent: Literal[2, 4, 8] | None = None,
    size: tuple[int, int] | None = None,
    reduction: float = 16,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> GatherExcite: ...
@overload
def attention(
    mechanism: Literal["gct"],
    /,
    *,
    mode: Literal["l2", "l1"] = "l2",
    after_relu: bool = False,
    eps: float = 1e-05,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> GCT: ...
@overload
def attention(
    mechanism: Literal["global_context"],
    /,
    *,
    reduction: float = 16,
    pool: Literal["attention", "avg"] = "attention",
    fusion: Literal["add", "mul", "mul-add"] = "add",
    eps: float = 1e-05,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> GlobalContext: ...
@overload
def attention(
    mechanism: Literal["large_kernel"],
    /,
    *,
    kernel_size: Literal[7, 11, 23, 35, 41, 53] = 23,
    separable: bool = False,
    block: bool = False,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> LargeKernelAttention: ...
@overload
def attention(
    mechanism: Literal["lct"],
    /,
    *,
    groups: int = 8,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> LCT: ...
@overload
def attention(
    mechanism: Literal["mlca"],
    /,
    *,
    local_size: int = 5,
    local_weight: float = 0.5,
    gamma: float = 2,
    beta: float = 1,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> MLCA: ...
@overload
def attention(
    mechanism: Literal["msca"],
    /,
    *,
    block: bool = False,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> MSCA: ...
@overload
def attention(
    mechanism: Literal["nam"],
    /,
    *,
    momentum: float = 0.1,
    eps: float = 1e-05,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> NAM: ...
@overload
def attention(
    mechanism: Literal["non_local"],
    /,
    *,
    reduction: float = 2,
    similarity: Literal["softmax", "dot"] = "softmax",
    scale: Literal["hidden", "channels", "none"] = "hidden",
    pool: Literal["input", "keys", "none"] = "input",
    norm: bool = True,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> NonLocal: ...
@overload
def attention(
    mechanism: Literal["parnet"],
    /,
    *,
    out_channels: int | None = None,
    stride: Literal[1, 2] = 1,
    groups: int = 1,
    activation: Literal["silu", "relu"] = "silu",
    gate_only: bool = False,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> ParNet: ...
@overload
def attention(
    mechanism: Literal["polarized"],
    /,
    *,
    order: Literal["sequential", "parallel"] = "sequential",
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> PolarizedAttention: ...
@overload
def attention(
    mechanism: Literal["residual_cbam"],
    /,
    *,
    out_channels: int | None = None,
    reduction: float = 2,
    bias: bool = True,
    pools: tuple[Literal["avg", "max", "lp", "lse"], ...] = ("avg", "max"),
    kernel_size: int = 7,
    norm: bool = False,
    spatial_bias: bool = True,
    order: Literal["channel-spatial", "spatial-channel", "parallel"] = "channel-spatial",
    conv_kernel_size: int = 3,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> ResidualCBAM: ...
@overload
def attention(
    mechanism: Literal["scsa"],
    /,
    *,
    heads: int = 1,
    window: int = 7,
    pool: Literal["mean", "max", "global"] = "mean",
    gate: Literal["sigmoid", "softmax"] = "sigmoid",
    kernel_sizes: tuple[int, int, int, int] = (3, 5, 7, 9),
    bias: bool = False,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> SCSA: ...
@overload
def attention(
    mechanism: Literal["scse"],
    /,
    *,
    reduction: float = 2,
    mode: Literal["max", "add", "channel", "spatial"] = "max",
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> SCSE: ...
@overload
def attention(
    mechanism: Literal["se"],
    /,
    *,
    reduction: float = 16,
    bias: bool = True,
    norm: bool = False,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> SE: ...
@overload
def attention(
    mechanism: Literal["shuffle"],
    /,
    *,
    groups: int = 64,
    shuffle: bool = True,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> ShuffleAttention: ...
@overload
def attention(
    mechanism: Literal["simam"],
    /,
    *,
    e_lambda: float = 0.0001,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> SimAM: ...
@overload
def attention(
    mechanism: Literal["sk"],
    /,
    *,
    groups: int = 32,
    reduction: float = 16,
    min_hidden: int = 32,
    dilations: tuple[int, ...] = (1, 2),
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> SK: ...
@overload
def attention(
    mechanism: Literal["smfa"],
    /,
    *,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> SMFA: ...
@overload
def attention(
    mechanism: Literal["spatial"],
    /,
    *,
    kernel_size: int = 7,
    norm: bool = True,
    bias: bool = False,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> SpatialAttention: ...
@overload
def attention(
    mechanism: Literal["srm"],
    /,
    *,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> SRM: ...
@overload
def attention(
    mechanism: Literal["strip_pooling"],
    /,
    *,
    pools: tuple[int, ...] = (),
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> StripPooling: ...
@overload
def attention(
    mechanism: Literal["triplet"],
    /,
    *,
    kernel_size: int = 7,
    spatial: bool = True,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
) -> TripletAttention: ...
@overload
def attention(
    mechanism: str | Mechanism | type[Mechanism],
    /,
    *,
    start: Start = "paper",
    data_format: DataFormat | None = None,
    name: str | None = None,
    dtype: Any = None,
    trainable: bool = True,
    activity_regularizer: Any = None,
    autocast: bool = True,
    **options: Any,
) -> Attention:
    """Return the named mechanism as a `keras.Layer`. Raises UsageError for an unknown name."""
