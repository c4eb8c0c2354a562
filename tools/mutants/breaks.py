"""Deliberate breaks of the code, each of which the tests beside it must catch. run.py runs them.

`old` stands in the file exactly once. Where the code has changed so that it no longer does, find
another place for a break of the same kind.
"""

from typing import NamedTuple

CORE = "src/gru_c/_core/"
NUMERICS = ("tests/test_numerics.py",)
ACTIVATIONS = ("tests/test_activations.py",)
ERRORS = ("tests/test_errors.py",)
INTERFACE = ("tests/test_interface.py",)
WEIGHTS = ("tests/test_weights.py",)
LEARN = ("tests/test_learn.py",)
COMMAND = ("tests/test_cli.py",)
COUNTS = ("tests/test_complexity.py",)
BENCH = ("tests/test_bench.py",)
POOL = ("tests/test_threads_pool.py",)


class Break(NamedTuple):
    """Names, a file of the checkout, a text in it and another in its place, files of tests."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple


BREAKS = [
    # ---- kernels: the gates and their derivatives
    Break("gates-without-reset", CORE + "kernels.pxi",
          "tanh(g[j] + r * g[3 * plane + j])", "tanh(g[j] + g[3 * plane + j])", NUMERICS),
    Break("blend-without-tanh", CORE + "kernels.pxi",
          "n = tanh(g[j])", "n = g[j]", NUMERICS),
    Break("d_gates-reset", CORE + "kernels.pxi",
          "dg[plane + j] = dq * q * (1 - r)", "dg[plane + j] = dq * q", NUMERICS),
    Break("d_blend-tanh", CORE + "kernels.pxi",
          "dg[j] = d * (1 - z) * (1 - n * n)", "dg[j] = d * (1 - z) * (1 - n)", NUMERICS),
    Break("d_reset-state", CORE + "kernels.pxi",
          "dh[j] = dh[j] + dq[j] * r", "dh[j] = dh[j] + dq[j]", NUMERICS),
    Break("output-rest", CORE + "kernels.pxi",
          "memcpy(output + units // step, h + units // step, rest)",
          "memcpy(output + units // step, h + units // step, rest // 2)", NUMERICS),
    Break("d_output-rest", CORE + "kernels.pxi",
          "dh[units // step] = dh[units // step] + last", "dh[units // step] = last", NUMERICS),
    # ---- simd_real.h: e^x and what is made of it
    Break("exp-quadratic", CORE + "simd_real.h",
          "*p = r + r2 * POLYNOMIAL(r, r2);", "*p = r + r2 * (REAL)0.5;", ACTIVATIONS),
    Break("tanh-of-small-numbers", CORE + "simd_real.h",
          "vec m = scale * p + (scale - (REAL)1);", "vec m = (scale + scale * p) - (REAL)1;",
          ACTIVATIONS),
    Break("tanh-without-clamp", CORE + "simd_real.h",
          "NAME(clamp)((REAL)2 * x, -2 * TANH_ONE, 2 * TANH_ONE)", "(REAL)2 * x", ACTIVATIONS),
    # ---- panels: packing, products of several pieces
    Break("pack-second-panel", CORE + "panels.pyx",
          "b + first * b_col, b_row, b_col, target, depth)",
          "b + first, b_row, b_col, target, depth)", NUMERICS),
    Break("second-piece-adds", CORE + "panels.pyx",
          "from_row = c_row", "from_row = 0", NUMERICS),
    # ---- recurrence: the time loop
    Break("gates-of-a-chunk", CORE + "recurrence.pyx",
          "(t if s.save else t % s.chunk)", "(t if s.save else 0)", NUMERICS),
    Break("backward-skips-a-step", CORE + "recurrence.pyx",
          "for t in range(stop - 1, start - 1, -1)", "for t in range(stop - 1, start, -1)",
          NUMERICS),
    Break("output-of-part-of-a-row", CORE + "recurrence.pyx",
          "t * s.output_step + part.row * s.output_row + first",
          "t * s.output_step + part.row * w.hidden + first", NUMERICS),
    # ---- call: what comes in and goes out
    Break("bias-of-the-new-gate", CORE + "call.pyx",
          "planes = [1, 2, 0]", "planes = [1, 2, 3]", NUMERICS),
    Break("bias-of-both-conventions", CORE + "call.pyx",
          "hidden_planes = [1, 2, 3 if w.reset_after else 0]", "hidden_planes = [1, 2, 3]",
          NUMERICS),
    # ---- threads
    Break("share-of-a-thread", CORE + "threads.pyx",
          "return length * index // count", "return length // count * index", NUMERICS),
    Break("threads-of-blas", CORE + "threads.pyx",
          "limit = min(limit, blas)", "pass", ("tests/test_robustness.py",)),
    Break("workers-in-a-mode-of-their-own", CORE + "threads.pyx",
          "set_fp_mode(pool.fp_mode)", "pass", POOL),
    Break("waits-never-sleep", CORE + "threads.pyx",
          "if now >= end:", "if now < 0:", POOL),
    Break("quota-of-one-cgroup", CORE + "cpus.py",
          "range(len(parts), -1, -1)", "[len(parts)]", POOL),
    Break("environment-above-the-quota", CORE + "__init__.py",
          "threads.choose(min(count, most))", "threads.choose(count)", POOL),
    Break("ctrl-c-waits-for-the-end", CORE + "recurrence.pyx",
          "if s.poll == NULL or part.index != 0:", "if True:", ("tests/test_interrupt.py",)),
    # ---- layer: packing and the quick ways
    Break("bias-before", CORE + "layer.pyx",
          "bias[j] += bias_hh[2 * H + j]", "bias[j] += 0", NUMERICS),
    Break("overlap-of-out", CORE + "layer.pyx",
          "return start < other + cnp.PyArray_NBYTES(b) and", "return False and", INTERFACE),
    Break("grads-that-are-held", CORE + "layer.pyx",
          "Py_REFCNT(found) == 2", "Py_REFCNT(found) >= 2", INTERFACE),
    # ---- gru.py, cell.py
    Break("batch-first-is-plain", "src/gru_c/gru.py",
          "self.num_layers == 1 and not self.batch_first", "self.num_layers == 1", INTERFACE),
    Break("no-steps", "src/gru_c/gru.py", "if not steps:", "if False:", ERRORS),
    Break("step-checks-no-out", "src/gru_c/gru.py",
          "_checks.output(out, result.shape, self.dtype)", "pass", ERRORS),
    Break("state-of-another-batch", "src/gru_c/gru.py",
          "if h.shape != expected:", "if False:", ERRORS),
    Break("hidden-of-another-batch", "src/gru_c/cell.py",
          "if x.ndim == 2 and x.shape[0] != h.shape[0]:", "if False:", ERRORS),
    Break("cell-shows-its-own-x", "src/gru_c/cell.py",
          "tape.x[0].copy()", "tape.x[0]", INTERFACE),
    Break("backward-with-new-weights", "src/gru_c/cell.py",
          "dx, dh, self._trace.grads = tape.layer.gradients(",
          "dx, dh, self._trace.grads = self._layer.gradients(", WEIGHTS),
    Break("block-of-another-gate", "src/gru_c/cell.py",
          'enumerate("rzn")', 'enumerate("zrn")', INTERFACE),
    # ---- _checks, _module, _parameters
    Break("bool-is-a-size", "src/gru_c/_checks.py",
          "        if isinstance(value, (bool, np.bool_)):", "        if False:", ERRORS),
    Break("floats-are-cast", "src/gru_c/_checks.py",
          'native.kind in "biu"', 'native.kind in "biuf"', ERRORS),
    Break("out-is-read-only", "src/gru_c/_checks.py",
          "if not out.flags.writeable:", "if False:", ERRORS),
    Break("any-stride-is-a-row", "src/gru_c/_checks.py",
          "a.shape[-1] == 1 or a.strides[-1] == a.itemsize", "True", INTERFACE),
    Break("eval-keeps-the-tape", "src/gru_c/_module.py",
          "self._trace.drop()", "pass", ERRORS),
    Break("unexpected-keys", "src/gru_c/_module.py", "if unexpected:", "if False:", ERRORS),
    Break("weights-can-be-edited", "src/gru_c/_parameters.py",
          "return np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape)", "return a.copy()",
          WEIGHTS),
    # ---- learn
    Break("adam-without-correction", "src/gru_c/learn/optim.py",
          "self.learning_rate * root / (1 - beta1**self.steps)", "self.learning_rate * root",
          LEARN),
    Break("clip-hides-nan", "src/gru_c/learn/optim.py",
          "if not factor >= 1:", "if factor < 1:", LEARN),
    Break("loss-is-a-sum", "src/gru_c/learn/losses.py", "dlogits /= count", "pass", LEARN),
    Break("first-of-the-best", "src/gru_c/learn/trainer.py",
          ">= best.validation_accuracy", "> best.validation_accuracy", LEARN),
    Break("ctrl-c-leaves-half-a-file", "src/gru_c/learn/classifier.py",
          "except BaseException:", "except Exception:", LEARN),
    Break("head-of-the-first-layer", "src/gru_c/learn/classifier.py",
          "return self.head(h_n[-1])", "return self.head(h_n[0])", LEARN),
    Break("nan-in-a-file", "src/gru_c/learn/classifier.py",
          "if not np.isfinite(tensor).all():\n            raise ModelFileError",
          "if False:\n            raise ModelFileError", LEARN),
    Break("nan-is-saved", "src/gru_c/learn/classifier.py",
          "if not np.isfinite(tensor).all():\n                raise ValueError",
          "if False:\n                raise ValueError", LEARN),
    # ---- the command line, the count of operations, the benchmark
    Break("status-after-ctrl-c", "src/gru_c/cli.py",
          "FAILED, INTERRUPTED = 1, 130", "FAILED, INTERRUPTED = 1, 1", COMMAND),
    Break("pixels-of-another-scale", "src/gru_c/cli.py",
          "return images.reshape(-1, 8, 8).astype(np.float64)",
          "return images.reshape(-1, 8, 8).swapaxes(1, 2).astype(np.float64)", COMMAND),
    Break("bias-of-one-side", "src/gru_c/complexity.py", "2 * units if bias", "units if bias",
          COUNTS),
    Break("mean-of-ratios", "bench/summary.py",
          "math.exp(", "(", BENCH),
]
