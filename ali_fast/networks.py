"""The networks, to be laid beside the paper's Appendix A. Standard library only."""

from __future__ import annotations

from ali_fast.arch import Architecture, codes, conv, conv_bn, image, logit, maxout, transposed_bn

# --- Appendix A -------------------------------------------------------------------------------------

_CIFAR_ENCODER = (
    conv_bn(5, 1, 32),
    conv_bn(4, 2, 64),
    conv_bn(4, 1, 128),
    conv_bn(4, 2, 256),
    conv_bn(4, 1, 512),
    conv_bn(1, 1, 512),
)
_CIFAR_DECODER = (
    transposed_bn(4, 1, 256),
    transposed_bn(4, 2, 128),
    transposed_bn(4, 1, 64),
    transposed_bn(4, 2, 32),
    transposed_bn(5, 1, 32),
    conv_bn(1, 1, 32),
)

CIFAR10 = Architecture(
    image_channels=3,
    image_size=32,
    z_dim=64,
    slope=0.1,
    encoder=(*_CIFAR_ENCODER, codes(64)),
    decoder=(*_CIFAR_DECODER, image(3)),
    discriminator_x=(
        maxout(5, 1, 32, 0.2),
        maxout(4, 2, 64, 0.5),
        maxout(4, 1, 128, 0.5),
        maxout(4, 2, 256, 0.5),
        maxout(4, 1, 512, 0.5),
    ),
    discriminator_z=(
        maxout(1, 1, 512, 0.2, bias="none"),
        maxout(1, 1, 512, 0.5, bias="none"),
    ),
    discriminator_xz=(
        maxout(1, 1, 1024, 0.5),
        maxout(1, 1, 1024, 0.5),
        logit(0.5),
    ),
)


def _svhn(channels: int) -> Architecture:
    return Architecture(
        image_channels=channels,
        image_size=32,
        z_dim=256,
        slope=0.01,
        encoder=(*_CIFAR_ENCODER, codes(256)),
        decoder=(*_CIFAR_DECODER, image(channels)),
        discriminator_x=(
            conv(5, 1, 32, dropout=0.2, bias="tied"),
            conv_bn(4, 2, 64, dropout=0.2),
            conv_bn(4, 1, 128, dropout=0.2),
            conv_bn(4, 2, 256, dropout=0.2),
            conv_bn(4, 1, 512, dropout=0.2),
        ),
        discriminator_z=(conv(1, 1, 512, dropout=0.2), conv(1, 1, 512, dropout=0.2)),
        discriminator_xz=(
            conv(1, 1, 1024, dropout=0.2, bias="tied"),
            conv(1, 1, 1024, dropout=0.2, bias="tied"),
            logit(0.2),
        ),
    )


SVHN = _svhn(3)

CELEBA = Architecture(
    image_channels=3,
    image_size=64,
    z_dim=256,
    slope=0.02,
    encoder=(
        conv_bn(2, 1, 64),
        conv_bn(7, 2, 128),
        conv_bn(5, 2, 256),
        conv_bn(7, 2, 256),
        conv_bn(4, 1, 512),
        codes(256),
    ),
    decoder=(
        transposed_bn(4, 1, 512),
        transposed_bn(7, 2, 256),
        transposed_bn(5, 2, 256),
        transposed_bn(7, 2, 128),
        transposed_bn(2, 1, 64),
        image(3),
    ),
    # The code, followed here, drops 0.2 in all of D(x) and does not normalize its first layer; the table drops nothing
    # there and does.
    discriminator_x=(
        conv(2, 1, 64, dropout=0.2, bias="tied"),
        conv_bn(7, 2, 128, dropout=0.2),
        conv_bn(5, 2, 256, dropout=0.2),
        conv_bn(7, 2, 256, dropout=0.2),
        conv_bn(4, 1, 512, dropout=0.2),
    ),
    discriminator_z=(conv(1, 1, 1024, dropout=0.2), conv(1, 1, 1024, dropout=0.2)),
    discriminator_xz=(
        conv(1, 1, 2048, dropout=0.2, bias="tied"),
        conv(1, 1, 2048, dropout=0.2, bias="tied"),
        logit(0.2),
    ),
)

IMAGENET64 = Architecture(
    image_channels=3,
    image_size=64,
    z_dim=256,
    slope=0.01,
    encoder=(
        conv_bn(4, 2, 64),
        conv_bn(4, 1, 64),
        conv_bn(4, 2, 128),
        conv_bn(4, 1, 128),
        conv_bn(4, 2, 256),
        conv_bn(4, 1, 256),
        conv_bn(1, 1, 2048),
        conv_bn(1, 1, 2048),
        codes(256),
    ),
    decoder=(
        conv_bn(1, 1, 2048),
        conv_bn(1, 1, 256),
        transposed_bn(4, 1, 256),
        transposed_bn(4, 2, 128),
        transposed_bn(4, 1, 128),
        transposed_bn(4, 2, 64),
        transposed_bn(4, 1, 64),
        transposed_bn(4, 2, 64),
        image(3),
    ),
    discriminator_x=(
        conv(4, 2, 64, dropout=0.2, bias="tied"),
        conv_bn(4, 1, 64, dropout=0.2),
        conv_bn(4, 2, 128, dropout=0.2),
        conv_bn(4, 1, 128, dropout=0.2),
        conv_bn(4, 2, 256, dropout=0.2),
        conv_bn(4, 1, 256, dropout=0.2),
    ),
    discriminator_z=(
        conv(1, 1, 2048, dropout=0.2, bias="tied"),
        conv(1, 1, 2048, dropout=0.2, bias="tied"),
    ),
    discriminator_xz=(
        conv(1, 1, 4096, dropout=0.2, bias="tied"),
        conv(1, 1, 4096, dropout=0.2, bias="tied"),
        logit(0.2),
    ),
)

# --- beside the paper's -------------------------------------------------------------------------------

# The authors' code finds its dropout sites by a slice and so drops the inputs of conv 2, of maxout 3 and
# of conv 5, and nothing at conv 3 and conv 4 of D(x).
CIFAR10_CODE = Architecture(
    image_channels=3,
    image_size=32,
    z_dim=64,
    slope=0.1,
    encoder=CIFAR10.encoder,
    decoder=CIFAR10.decoder,
    discriminator_x=(
        maxout(5, 1, 32, 0.2),
        maxout(4, 2, 64, 0.5),
        maxout(4, 1, 128, 0.5, dropout_site="before_maxout"),
        maxout(4, 2, 256, 0.0),
        maxout(4, 1, 512, 0.5),
    ),
    discriminator_z=CIFAR10.discriminator_z,
    discriminator_xz=CIFAR10.discriminator_xz,
)

FASHION_MNIST = _svhn(1)

# About an eighth of SVHN's work, a maxout D without batch norm: an epoch is a minute on two cores.
FASHION_MNIST_SMALL = Architecture(
    image_channels=1,
    image_size=32,
    z_dim=64,
    slope=0.1,
    encoder=(
        conv_bn(4, 2, 32),
        conv_bn(4, 2, 64),
        conv_bn(3, 1, 128),
        conv_bn(4, 1, 256),
        codes(64),
    ),
    decoder=(
        transposed_bn(4, 1, 128),
        transposed_bn(3, 1, 64),
        transposed_bn(5, 2, 32),
        transposed_bn(4, 2, 16),
        image(1),
    ),
    discriminator_x=(
        maxout(4, 2, 64, 0.2),
        maxout(4, 2, 64, 0.2),
        maxout(3, 1, 128, 0.2),
        maxout(4, 1, 256, 0.2),
    ),
    discriminator_z=(maxout(1, 1, 256, 0.2), maxout(1, 1, 256, 0.2)),
    discriminator_xz=(maxout(1, 1, 512, 0.2), maxout(1, 1, 512, 0.2), logit(0.2)),
    init_std=0.05,
)

DIGITS = Architecture(
    image_channels=1,
    image_size=8,
    z_dim=16,
    slope=0.1,
    encoder=(conv_bn(3, 1, 32), conv_bn(4, 2, 64), conv_bn(2, 1, 128), codes(16)),
    decoder=(transposed_bn(2, 1, 64), transposed_bn(4, 2, 32), transposed_bn(3, 1, 32), image(1)),
    discriminator_x=(maxout(3, 1, 64, 0.2), maxout(4, 2, 64, 0.2), maxout(2, 1, 128, 0.2)),
    discriminator_z=(maxout(1, 1, 128, 0.2), maxout(1, 1, 128, 0.2)),
    discriminator_xz=(maxout(1, 1, 256, 0.2), maxout(1, 1, 256, 0.2), logit(0.2)),
    init_std=0.05,  # at 0.01 the codes still said nothing of the digit after 4,000 steps
)
