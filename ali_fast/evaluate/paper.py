"""The paper's numbers (Dumoulin et al., ICLR 2017, Tables 1 and 2), printed beside ours. Errors in percent."""

SVHN_1000 = [
    ("DCGAN + L2-SVM (Radford et al.), SVHN", "22.18"),
    ("ALI + L2-SVM, SVHN", "19.14 +- 0.50"),
]
SVHN_CLASSES = [
    ("Improved GAN (Salimans et al.), SVHN, 1,000 labels", "8.11 +- 1.3"),
    ("ALI, SVHN, 1,000 labels", "7.42 +- 0.65"),
]
CIFAR10_CLASSES = [
    (f"{name}, CIFAR-10, {labels:,} labels{', +- three std' if '+-' in error else ''}", error)
    for labels, errors in {
        1000: ("21.83", "19.98 +- 0.89"),
        2000: ("19.61", "19.09 +- 0.44"),
        4000: ("18.63", "17.99 +- 1.62"),
        8000: ("17.72", "17.05 +- 1.49"),
    }.items()
    for name, error in zip(("Improved GAN (Salimans et al.)", "ALI"), errors, strict=True)
]
