"""Train on the digits of gru_c for some seconds, classify the test images, compare with Python."""

import sys

import numpy as np
from gru_c.datasets import load_digits, split_digits
from gru_c.learn import SequenceClassifier, fit

from gru_digits import Classifier


def main() -> int:
    images, labels = load_digits()                         # (1797, 8, 8): 8 steps of 8 pixels
    train, test = split_digits()
    model = SequenceClassifier(input_size=8, hidden_size=32, num_classes=10, rng=0)
    fit(model, (images[train], labels[train]), (images[test], labels[test]), epochs=10, rng=0)
    model.eval()

    classify = Classifier(model.gru, model.head.weight, model.head.bias)
    classes = classify(images[test])
    output, _ = model.gru(images[test])                    # gru(x), in Python
    expected = np.argmax(output[:, -1] @ model.head.weight.T + model.head.bias, axis=1)
    print(f"{np.mean(classes == labels[test]):.1%} of {len(test)} test images are right")
    if not np.array_equal(classes, expected):
        print(f"{np.sum(classes != expected)} differ from gru(x)")
        return 1
    if not np.array_equal(classify(images[test], num_threads=2), classes):
        print("two threads differ from one")
        return 1
    print("the same classes as gru(x), with one thread and with two")
    return 0


sys.exit(main())
