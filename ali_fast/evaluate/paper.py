"""The paper's numbers (Dumoulin et al., ICLR 2017, Tables 1 and 2), printed beside ours. Errors in percent."""

SVHN_1000 = [
    ("DCGAN + L2-SVM (Radford et al.)", "22.18"),
    ("ALI + L2-SVM, SVHN", "19.14 +- 0.50"),
]
SVHN_CLASSES = [
    ("Improved GAN (Salimans et al.), SVHN, 1,000 labels", "8.11 +- 1.3"),
    ("ALI, K + 1 classes, SVHN, 1,000 labels", "7.42 +- 0.65"),
]
CIFAR10_CLASSES = [
    ("Improved GAN (Salimans et al.), CIFAR-10", ("21.83", "19.61", "18.63", "17.72")),
    ("ALI, K + 1 classes, CIFAR-10", ("19.98 +- 0.89", "19.09 +- 0.44", "17.99 +- 1.62", "17.05 +- 1.49")),
]
CIFAR10_LABELS = (1000, 2000, 4000, 8000)
