"""Networks as data: one row per layer. The tables themselves: ali_fast.networks.

A table is a tuple of rows; `layout` gives each row its input and output shape, parameters and multiply-adds.
Convolutions are "valid" (no padding). Dropout acts on a row's input, in the discriminator only.
Standard library only: `ali-fast describe` runs without torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Activation = Literal["leaky_relu", "maxout", "sigmoid", "linear"]
Bias = Literal["none", "tied", "untied"]
DropoutSite = Literal["input", "before_maxout"]

MAXOUT_PIECES = 2
EMBEDDING = 256  # channels that a condition y is linearly embedded in, as in the paper


@dataclass(frozen=True, kw_only=True)
class Row:
    """One layer: [dropout] -> (transposed) convolution -> batch norm or bias -> activation."""

    operation: Literal["conv", "transposed"]
    kernel: int
    stride: int
    maps: int
    """Feature maps of the convolution; maxout leaves maps / 2 channels."""
    norm: bool = False
    dropout: float = 0.0
    dropout_site: DropoutSite = "input"
    """"before_maxout" is where the authors' CIFAR-10 code drops in its third D(x) layer."""
    activation: Activation = "leaky_relu"
    bias: Bias = "none"
    """"untied": one per channel and pixel."""
    condition: int = 0
    """Channels of the embedded condition that the input is joined by."""

    def __post_init__(self) -> None:
        assert not (self.norm and self.bias != "none"), "batch norm has its own shift"
        assert not (self.activation == "maxout" and self.maps % MAXOUT_PIECES)
        assert not self.norm or self.activation == "leaky_relu", "what layers.Normalized is"
        assert (self.bias == "untied") == (self.activation == "sigmoid"), "what layers.Pixels is"
        assert self.dropout_site == "input" or self.activation == "maxout"
        assert 0.0 <= self.dropout < 1.0

    @property
    def channels(self) -> int:
        """Channels that leave the layer."""
        return self.maps // MAXOUT_PIECES if self.activation == "maxout" else self.maps

    @property
    def input_dropout(self) -> float:
        return self.dropout if self.dropout_site == "input" else 0.0


@dataclass(frozen=True)
class Layout:
    """A row in its place: square maps, sizes in pixels."""

    row: Row
    in_channels: int
    """Those of the embedded condition among them."""
    in_size: int
    out_size: int

    @property
    def weights(self) -> int:
        return self.in_channels * self.row.maps * self.row.kernel**2

    @property
    def parameters(self) -> int:
        pixels = self.out_size**2 if self.row.bias == "untied" else 1
        bias = self.row.maps * pixels if self.row.bias != "none" else 0
        return self.weights + bias + (2 * self.row.maps if self.row.norm else 0)

    @property
    def multiply_adds(self) -> int:
        """Of the convolution, for one image."""
        size = self.in_size if self.row.operation == "transposed" else self.out_size
        return self.weights * size**2


Table = tuple[Row, ...]


def layout(table: Table, channels: int, size: int) -> tuple[Layout, ...]:
    """Place a table's rows on an input of `channels` maps of `size` x `size` pixels."""
    placed = []
    for row in table:
        if row.operation == "transposed":
            out = (size - 1) * row.stride + row.kernel
        else:
            assert size >= row.kernel, f"{row} does not fit on {size}x{size}"
            out = (size - row.kernel) // row.stride + 1
        assert not row.condition or size == 1, "a condition joins one pixel"
        placed.append(Layout(row, channels + row.condition, size, out))
        channels, size = row.channels, out
    return tuple(placed)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Encoder, decoder and discriminator of one experiment."""

    image_channels: int
    image_size: int
    """Pixels; smaller images are padded with zeros to it, on the device."""
    z_dim: int
    slope: float
    """Of every leaky ReLU."""
    encoder: Table
    decoder: Table
    discriminator_x: Table
    discriminator_z: Table
    discriminator_xz: Table
    init_std: float = 0.01
    """Weights ~ N(0, init_std^2); biases 0; batch norm's scale 1 and shift 0."""

    def __post_init__(self) -> None:
        places = self.layouts()
        assert self.encoder[-1].maps == 2 * self.z_dim, "the encoder ends in mu and log_sigma"
        assert places["encoder"][-1].out_size == places["discriminator_x"][-1].out_size == 1
        last = places["decoder"][-1]
        assert (last.row.maps, last.out_size) == (self.image_channels, self.image_size)
        assert self.discriminator_xz[-1].maps == 1
        assert not any(row.norm for row in self.discriminator_z + self.discriminator_xz), (
            "the one-backward route needs a head that treats pairs independently"
        )

    @property
    def joint_channels(self) -> int:
        return self.discriminator_x[-1].channels + self.discriminator_z[-1].channels

    @property
    def pairs_independent(self) -> bool:
        """Whether D's output for a pair depends on that pair alone (no batch norm in D)."""
        return not any(row.norm for row in self.discriminator_x)

    def conditioned(self) -> Architecture:
        """With the embedded condition at the input of E's last layer, of G's first and of D(x, z)'s first."""

        def joined(row: Row) -> Row:
            return replace(row, condition=EMBEDDING)

        return replace(
            self,
            encoder=(*self.encoder[:-1], joined(self.encoder[-1])),
            decoder=(joined(self.decoder[0]), *self.decoder[1:]),
            discriminator_xz=(joined(self.discriminator_xz[0]), *self.discriminator_xz[1:]),
        )

    @property
    def largest_map(self) -> int:
        """Elements, an image, of the largest tensor on the way through the networks."""
        places = [place for table in self.layouts().values() for place in table]
        return max(place.row.maps * place.out_size**2 for place in places)

    def layouts(self) -> dict[str, tuple[Layout, ...]]:
        """Every table placed on its input, by the names of the fields."""
        return {
            "encoder": layout(self.encoder, self.image_channels, self.image_size),
            "decoder": layout(self.decoder, self.z_dim, 1),
            "discriminator_x": layout(self.discriminator_x, self.image_channels, self.image_size),
            "discriminator_z": layout(self.discriminator_z, self.z_dim, 1),
            "discriminator_xz": layout(self.discriminator_xz, self.joint_channels, 1),
        }


# --- how tables are written -----------------------------------------------------------------------


def conv(kernel: int, stride: int, maps: int, **options) -> Row:
    return Row(operation="conv", kernel=kernel, stride=stride, maps=maps, **options)


def conv_bn(kernel: int, stride: int, maps: int, **options) -> Row:
    return conv(kernel, stride, maps, norm=True, **options)


def transposed_bn(kernel: int, stride: int, maps: int) -> Row:
    return Row(operation="transposed", kernel=kernel, stride=stride, maps=maps, norm=True)


def maxout(kernel: int, stride: int, maps: int, dropout: float, bias: Bias = "tied", **options) -> Row:
    return conv(kernel, stride, maps, activation="maxout", dropout=dropout, bias=bias, **options)


def codes(z_dim: int) -> Row:
    """The encoder's last layer: mu and log_sigma."""
    return conv(1, 1, 2 * z_dim, activation="linear", bias="tied")


def embedding() -> Row:
    """Of a condition y, K values on one pixel.

    Without a bias, which would say nothing of y: the authors' stays at 0. One that learned would shift what E, G and D
    take all at once; on the digits the decoder collapsed with it.
    """
    return conv(1, 1, EMBEDDING, activation="linear")


def image(channels: int) -> Row:
    """The decoder's last layer: pixels in [0, 1]."""
    return conv(1, 1, channels, activation="sigmoid", bias="untied")


def logit(dropout: float) -> Row:
    """The discriminator's last layer."""
    return conv(1, 1, 1, activation="linear", bias="tied", dropout=dropout)
