"""The networks as the paper's Appendix A prints them, with shapes and costs. Standard library only."""

from __future__ import annotations

from typing import Any

from ali_fast.arch import EMBEDDING, Architecture, Layout
from ali_fast.players import PLAYERS
from ali_fast.presets import Preset

NETWORKS = {
    "encoder": ("encoder",),
    "decoder": ("decoder",),
    "discriminator": ("discriminator_x", "discriminator_z", "discriminator_xz"),
}
_TITLES = {
    "encoder": "Encoder q(z|x)",
    "decoder": "Decoder p(x|z)",
    "discriminator_x": "Discriminator D(x)",
    "discriminator_z": "Discriminator D(z)",
    "discriminator_xz": "Discriminator D(x, z)",
}
_HEADER = (
    "operation",
    "kernel",
    "strides",
    "maps",
    "BN",
    "dropout",
    "nonlinearity",
    "output",
    "parameters",
    "multiply-adds",
)


def describe(preset: Preset) -> dict[str, Any]:
    """Every network's layers, parameters and multiply-adds for one image or code, as plain JSON values."""
    conditional = PLAYERS[preset.objective].conditional
    architecture = preset.architecture.conditioned() if conditional else preset.architecture
    layouts = architecture.layouts()
    networks = {}
    for network, tables in NETWORKS.items():
        layers = [{"table": table, **_layer(place, architecture)} for table in tables for place in layouts[table]]
        networks[network] = {
            "parameters": sum(layer["parameters"] for layer in layers),
            "multiply_adds": sum(layer["multiply_adds"] for layer in layers),
            "layers": layers,
        }
    return {
        "preset": preset.name,
        "dataset": preset.dataset,
        "objective": preset.objective,
        "from_paper": preset.from_paper,
        "image": [architecture.image_channels, architecture.image_size, architecture.image_size],
        "z_dim": architecture.z_dim,
        "batch_size": preset.batch_size,
        "epochs": preset.epochs,
        "learning_rate": preset.learning_rate,
        **networks,
        "parameters": sum(network["parameters"] for network in networks.values()),
        "multiply_adds": sum(network["multiply_adds"] for network in networks.values()),
    }


def _layer(place: Layout, architecture: Architecture) -> dict[str, Any]:
    row = place.row
    return {
        "operation": "transposed convolution" if row.operation == "transposed" else "convolution",
        "kernel": [row.kernel, row.kernel],
        "strides": [row.stride, row.stride],
        "maps": row.maps,
        "condition": row.condition,
        "batch_norm": row.norm,
        "dropout": row.dropout,
        "dropout_site": row.dropout_site,
        "nonlinearity": row.activation,
        "slope": architecture.slope if row.activation == "leaky_relu" else None,
        "bias": row.bias,
        "output": [row.channels, place.out_size, place.out_size],
        "parameters": place.parameters,
        "multiply_adds": place.multiply_adds,
    }


def to_text(description: dict[str, Any]) -> str:
    """`describe`'s result as tables for a terminal."""
    channels, size, _ = description["image"]
    lines = [
        f"{description['preset']}: {channels}x{size}x{size} images, z {description['z_dim']}, batch "
        f"{description['batch_size']}, {description['epochs']} epochs, Adam {description['learning_rate']:g}"
        + (", as in the paper" if description["from_paper"] else "")
    ]
    for network, tables in NETWORKS.items():
        rows: list[tuple[str, ...]] = [_HEADER]
        for table in tables:
            rows.append((_TITLES[table], *[""] * (len(_HEADER) - 1)))
            rows += [_cells(layer) for layer in description[network]["layers"] if layer["table"] == table]
        lines += ["", *_aligned(rows)]
        totals = description[network]
        lines.append(
            f"{network}: {totals['parameters']:,} parameters, {totals['multiply_adds']:,} multiply-adds an image"
        )
    if PLAYERS[description["objective"]].conditional:
        lines += [
            "",
            f"y: the condition, embedded linearly in {EMBEDDING} channels that E, G and D share; the embedding's own "
            f"{EMBEDDING} parameters for each class or attribute are not in the totals",
        ]
    lines += [
        "",
        f"total: {description['parameters']:,} parameters, {description['multiply_adds']:,} multiply-adds",
    ]
    return "\n".join(lines)


def _cells(layer: dict[str, Any]) -> tuple[str, ...]:
    nonlinearity = layer["nonlinearity"].replace("_", " ")
    if layer["slope"] is not None:
        nonlinearity += f" {layer['slope']:g}"
    dropout = f"{layer['dropout']:g}" + (" before maxout" if layer["dropout_site"] == "before_maxout" else "")
    return (
        "  " + layer["operation"] + (", with y" if layer["condition"] else ""),
        "x".join(map(str, layer["kernel"])),
        "x".join(map(str, layer["strides"])),
        str(layer["maps"]),
        "yes" if layer["batch_norm"] else "no",
        dropout,
        nonlinearity,
        "x".join(map(str, layer["output"])),
        f"{layer['parameters']:,}",
        f"{layer['multiply_adds']:,}",
    )


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns to one width: words left, numbers (the last two) right. A table's title spans them all."""
    full = [row for row in rows if any(row[1:])]
    widths = [max(len(row[i]) for row in full) for i in range(len(_HEADER))]
    lines = []
    for row in rows:
        words = [cell.ljust(width) for cell, width in zip(row[:-2], widths, strict=False)]
        numbers = [cell.rjust(width) for cell, width in zip(row[-2:], widths[-2:], strict=True)]
        lines.append("  ".join([*words, *numbers]) if any(row[1:]) else row[0])
    return lines
