"""Wrong uses: `# error: CODES` names the errors that mypy and basedpyright must find in its line.

tools/check_types.sh compares: nothing may be missing, nor found elsewhere. Never run.
"""

import numpy as np

import gru_c
from gru_c import GRU, GRUCell
from gru_c.datasets import load_digits
from gru_c.interop import convert, find, read_arrays
from gru_c.learn import Adam, SequenceClassifier, cross_entropy, fit

x = np.zeros((5, 2, 3), np.float32)
gru, cell = GRU(3, 4), GRUCell(3, 4)

GRU(3)                                             # error: call-arg, reportCallIssue
GRU("3", 4)                                        # error: arg-type, reportArgumentType
GRU(3, 4.0)                                        # error: arg-type, reportArgumentType
GRU(3, 4, dtype=16)                                # error: arg-type, reportArgumentType
GRU(3, 4, bias=None)                               # error: arg-type, reportArgumentType
GRU(3, 4, layers=2)                                # error: call-arg, reportCallIssue
GRU(3, 4, activation=np.tanh)                      # error: arg-type, reportArgumentType
GRU(3, 4, clip="5")                                # error: arg-type, reportArgumentType
GRU(3, 4, rng="seed")                              # error: arg-type, reportArgumentType
gru()                                              # error: call-arg, reportCallIssue
gru(x, lengths=[5, 5], out=[0.0])                  # error: arg-type, reportArgumentType
gru(x, mask=object())                              # error: arg-type, reportArgumentType
gru(x, dropout_masks=[x])                          # error: arg-type, reportArgumentType
gru(x, return_output="no")                         # error: arg-type, reportArgumentType
gru(x, length=[5, 5])                              # error: call-arg, reportCallIssue
gru.backward(x, accumulate="yes")                  # error: arg-type, reportArgumentType
gru.backward(x, need_dh_0=False)                   # error: call-arg, reportCallIssue
GRU(3, 4, dropout="0.5")                           # error: arg-type, reportArgumentType
GRU(3, 4, bidirectional=None)                      # error: arg-type, reportArgumentType
gru(object())                                      # error: arg-type, reportArgumentType
print(gru(x).shape)                                # error: attr-defined, reportAttributeAccessIssue
print(gru.hidden_sise)                             # error: attr-defined, reportAttributeAccessIssue
gru.hidden_sise = 5                                # error: attr-defined, reportAttributeAccessIssue
gru.weight_ih_l = x                                # error: attr-defined, reportAttributeAccessIssue
gru.weight_ih_l0 = object()                        # error: assignment, reportAttributeAccessIssue
print(gru.weight_ih_l0.shapes)                     # error: attr-defined, reportAttributeAccessIssue
gru.load_state_dict([x])                           # error: arg-type, reportArgumentType
gru.backward()                                     # error: call-arg, reportCallIssue
gru.backward(x, need_dx=None)                      # error: arg-type, reportArgumentType
gru.step(x[0], out=[0.0])                          # error: arg-type, reportArgumentType
gru.grads = {}                                     # error: misc, reportAttributeAccessIssue
gru.train(mode="yes")                              # error: arg-type, reportArgumentType
gru.training = "yes"                               # error: assignment, reportAttributeAccessIssue

GRUCell(3, 4, num_layers=2)                        # error: call-arg, reportCallIssue
cell(x, out="result")                              # error: arg-type, reportArgumentType
cell.forward(h_prev_t=x)                           # error: call-arg, reportCallIssue
print(cell.Wix)                                    # error: attr-defined, reportAttributeAccessIssue
cell.Wrx = object()                                # error: assignment, reportAttributeAccessIssue
cell.dWrx = x                                      # error: assignment, reportAttributeAccessIssue
cell.hidden = x                                    # error: assignment, reportAttributeAccessIssue
cell.init_weights(x, x, x)                         # error: call-arg, reportCallIssue

GRU.from_state_dict([x])                           # error: arg-type, reportArgumentType
GRU.from_state_dict({}, hidden_size=4)             # error: call-arg, reportCallIssue
GRU.from_torch()                                   # error: call-arg, reportCallIssue
GRU.from_torch("gru.pt", prefix=3)                 # error: arg-type, reportArgumentType
GRU.from_torch("gru.pt", dropout="0.5")            # error: arg-type, reportArgumentType
gru.to_torch(path=3)                               # error: arg-type, reportArgumentType
GRU.from_keras([x], go_backwards="yes")            # error: arg-type, reportArgumentType
gru.to_keras("gru.keras")                          # error: call-arg, reportCallIssue
GRU.from_onnx("gru.onnx", linear_before_reset="")  # error: arg-type, reportArgumentType
GRU.from_onnx("gru.onnx", weights=[x])             # error: arg-type, reportArgumentType
gru.to_onnx()                                      # error: call-arg, reportCallIssue
GRU.from_gates({}, product="W x")                  # error: call-arg, reportCallIssue
GRU.from_flax({}, reset_after=False)               # error: call-arg, reportCallIssue
GRU.from_equinox({}, 16)                           # error: arg-type, reportArgumentType
GRU.from_rtneural(3)                               # error: arg-type, reportArgumentType
gru.to_rtneural(None)                              # error: arg-type, reportArgumentType
gru.quantize(8)                                    # error: arg-type, reportArgumentType
gru.quantize("int8", x_bits=12.0)                  # error: arg-type, reportArgumentType
gru.nbytes = 3                                     # error: misc, reportAttributeAccessIssue
gru.save("gru.npz", {"epoch": 3})                  # error: dict-item, reportArgumentType
print(GRU.load("gru.npz").Wrx)                     # error: attr-defined, reportAttributeAccessIssue
print(GRUCell.load("cell.npz").num_layers)         # error: attr-defined, reportAttributeAccessIssue
convert("gru.pt")                                  # error: call-arg, reportCallIssue
convert("gru.pt", "gru.onnx", layers=2)            # error: call-arg, reportCallIssue
find(["gru.pt"])                                   # error: arg-type, reportArgumentType
print(find("gru.pt").name)                         # error: attr-defined, reportAttributeAccessIssue
read_arrays("gru.pt", max_bytes="4 GiB")           # error: arg-type, reportArgumentType

gru_c.set_num_threads("2")                         # error: arg-type, reportArgumentType
gru_c.set_num_threads()                            # error: call-arg, reportCallIssue
print(gru_c.get_num_threads() + "2")               # error: operator, reportOperatorIssue
gru_c.complexity(80)                               # error: call-arg, reportCallIssue
gru_c.complexity(80, 256.0)                        # error: arg-type, reportArgumentType
gru_c.complexity(80, 256, dtype=16)                # error: arg-type, reportArgumentType
gru_c.complexity(80, 256, lengths=3)               # error: arg-type, reportArgumentType
gru_c.complexity(80, 256, activation=max)          # error: arg-type, reportArgumentType
gru_c.complexity(80, 256).as_dict().total()        # error: attr-defined, reportAttributeAccessIssue
gru_c.complexity(80, 256).seq_len = 2              # error: misc, reportAttributeAccessIssue

gru_c.pad_sequences(3)                             # error: arg-type, reportArgumentType
gru_c.pad_sequences([x], dtype=16)                 # error: arg-type, reportArgumentType
print(gru_c.pad_sequences([x]).shape)              # error: attr-defined, reportAttributeAccessIssue
gru_c.unpad_sequences(x)                           # error: call-arg, reportCallIssue
print(gru_c.unpad_sequences(x, [5, 5]).shape)      # error: attr-defined, reportAttributeAccessIssue

images, labels = load_digits()
model = SequenceClassifier(8, 16)                  # error: call-arg, reportCallIssue
fit(model, images, (images, labels))               # error: arg-type, reportArgumentType
fit(gru, (images, labels), (images, labels))       # error: arg-type, reportArgumentType
fit(model, (images, labels), (images, labels), callback=3)  # error: arg-type, reportArgumentType
cross_entropy([[0.0]], labels)                     # error: arg-type, reportArgumentType
Adam(images, betas=0.9)                            # error: arg-type, reportArgumentType
model.save(3)                                      # error: arg-type, reportArgumentType
model.save("model", {"epoch": 3})                  # error: dict-item, reportArgumentType
load_digits(True)                                  # error: call-arg, reportCallIssue

gru_c.get_include(1)                               # error: call-arg, reportCallIssue
print(gru.handle().name)                           # error: attr-defined, reportAttributeAccessIssue
gru.stream("2")                                    # error: arg-type, reportArgumentType
