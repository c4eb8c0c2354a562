"""Deliberate breaks of the code, each of which the tests beside it must catch. run.py runs them.

`old` stands in the file exactly once. Where the code has changed so that it no longer does, find
another place for a break of the same kind.
"""

from typing import NamedTuple

CORE = "src/gru_c/_core/"
NUMERICS = ("tests/test_numerics.py",)
ACTIVATIONS = ("tests/test_activations.py",)
CHOSEN = ("tests/test_chosen_activations.py",)
ERRORS = ("tests/test_errors.py",)
INTERFACE = ("tests/test_interface.py",)
WEIGHTS = ("tests/test_weights.py",)
LEARN = ("tests/test_learn.py",)
COMMAND = ("tests/test_cli.py",)
SEQUENCES = ("tests/test_sequences.py",)
COUNTS = ("tests/test_complexity.py",)
BENCH = ("tests/test_bench.py",)
POOL = ("tests/test_threads_pool.py",)
GEMM = ("tests/test_gemm.py",)
MEMORY = ("tests/test_memory.py",)
STATE = ("tests/test_state.py",)


class Break(NamedTuple):
    """Names, a file of the checkout, a text in it and another in its place, files of tests."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple


BREAKS = [
    # ---- rnn/pointwise.pxi: the gates and their derivatives
    Break("gates-without-reset", CORE + "rnn/pointwise.pxi",
          "activate_n(gates, g[N_PLANE * plane + j] + r * g[Q_PLANE * plane + j])",
          "activate_n(gates, g[N_PLANE * plane + j] + g[Q_PLANE * plane + j])", NUMERICS),
    Break("blend-without-tanh", CORE + "rnn/pointwise.pxi",
          "n = activate_n(gates, g[N_PLANE * plane + j])", "n = g[N_PLANE * plane + j]", NUMERICS),
    Break("gates_backward-reset", CORE + "rnn/pointwise.pxi",
          "dq * q * (1 - r)", "dq * q", NUMERICS),
    Break("undo_n-tanh", CORE + "rnn/pointwise.pxi",
          "return dy * (1 - y * y)", "return dy * (1 - y)", NUMERICS),
    Break("gates_backward-reset-of-any", CORE + "rnn/pointwise.pxi",
          "undo_r_z(gates, da_n * q, r)", "undo_r_z(gates, dq * q, r)", CHOSEN),
    Break("reset_backward-state", CORE + "rnn/pointwise.pxi",
          "dh[j] = dh[j] + dq[j] * r", "dh[j] = dh[j] + dq[j]", NUMERICS),
    Break("store_rows-rest", CORE + "rnn/pointwise.pxi",
          "memcpy(t + count, s + count, rest)", "memcpy(t + count, s + count, rest // 2)",
          NUMERICS),
    Break("add_rows-rest", CORE + "rnn/pointwise.pxi",
          "target[count] = target[count] + last", "target[count] = last", NUMERICS),
    # ---- vmath: e^x and what is made of it
    Break("exp-quadratic", CORE + "vmath/math.h",
          "*p = r + r2 * NAME(POLYNOMIAL)(r, r2);", "*p = r + r2 * (REAL)0.5;", ACTIVATIONS),
    Break("tanh-of-small-numbers", CORE + "vmath/math.h",
          "vec m = scale * p + (scale - (REAL)1);", "vec m = (scale + scale * p) - (REAL)1;",
          ACTIVATIONS),
    Break("tanh-without-clamp", CORE + "vmath/math.h",
          "NAME(clamp)((REAL)2 * x, -2 * NAME(TANH_ONE), 2 * NAME(TANH_ONE))", "(REAL)2 * x",
          ACTIVATIONS),
    Break("derivative-at-a-kink", CORE + "vmath/activations.h",
          "(y > zero, one, zero + alpha)", "(y >= zero, one, zero + alpha)", CHOSEN),
    Break("derivative-beyond-the-clip", CORE + "vmath/activations.h",
          "NAME(select)((y == zero + low) | (y == zero + high), zero, slope)", "slope", CHOSEN),
    Break("clip-of-no-activation", CORE + "vmath/activations.h",
          "    x = NAME(clamp)(x, -clip, clip);\n", "", ACTIVATIONS),
    Break("softplus-of-small-numbers", CORE + "vmath/activations.h",
          "(scale + scale * p) * s)", "(scale + scale * p) * s + (REAL)1 - (REAL)1)", ACTIVATIONS),
    # ---- gemm: packing, products of several segments
    Break("pack-second-panel", CORE + "gemm/pack.pxi",
          "first = panel * PANEL_BYTES + i * nr", "first = i * nr", GEMM),
    Break("pack-second-segment", CORE + "gemm/pack.pxi",
          "length * first + segment * packed.k * nr", "length * first", GEMM),
    Break("pack-without-zeros", CORE + "gemm/pack.pxi",
          "memset(target + filled, 0, nr - filled)", "pass", GEMM),
    Break("second-segment-sets", CORE + "gemm/macrokernel.pxi",
          "init = target\n", "pass\n", GEMM),
    Break("packed-products-never-add", CORE + "gemm/microkernel.h",
          "accumulate ? c : NULL", "NULL", GEMM),
    # ---- rnn: the time loop, and what is around it
    Break("gates-of-a-chunk", CORE + "rnn/views.pxi",
          "t = t % call.chunk\n    return GateView", "t = 0\n    return GateView", NUMERICS),
    Break("x-with-gaps-in-place", CORE + "rnn/views.pxi",
          "return view.column == itemsize and", "return", INTERFACE),
    Break("backward-skips-a-step", CORE + "rnn/backward.pxi",
          "for s in range(stop - start)", "for s in range(stop - start - 1)", NUMERICS),
    Break("reversed-undone-forward", CORE + "rnn/backward.pxi",
          "t = start + mirrored(s, stop - start, not call.reverse)",
          "t = start + mirrored(s, stop - start, True)", NUMERICS),
    Break("reversed-reads-own-slot", CORE + "rnn/forward.pxi",
          "state_rows(call, t + call.reverse, part.row)", "state_rows(call, t, part.row)",
          NUMERICS),
    Break("reversed-sums-by-time", CORE + "rnn/weight_gradients.pxi",
          "block = mirrored(block, blocks, call.reverse)", "pass", NUMERICS),
    Break("d_output-of-step-0", CORE + "rnn/backward.pxi",
          "rows_at(&call.d_output, t, part.row)", "rows_at(&call.d_output, 0, part.row)",
          NUMERICS),
    Break("d_output-with-gaps-of-a-part", CORE + "rnn/backward.pxi",
          "first // itemsize * call.d_output.column", "first", NUMERICS),
    Break("bias-of-the-new-gate", CORE + "rnn/backward.pxi",
          "planes = [R_PLANE, Z_PLANE, N_PLANE]", "planes = [R_PLANE, Z_PLANE, Q_PLANE]", NUMERICS),
    Break("bias-of-both-conventions", CORE + "rnn/backward.pxi",
          "[R_PLANE, Z_PLANE, Q_PLANE if layer.reset_after else N_PLANE]", "[1, 2, 3]", NUMERICS),
    Break("output-of-part-of-a-row", CORE + "rnn/forward.pxi",
          "output.data + first, output.ld", "output.data, output.ld", NUMERICS),
    Break("sums-carry-too-soon", CORE + "rnn/weight_gradients.pxi",
          "if block % size:", "if False:", (*NUMERICS, "tests/test_rounding.py")),
    Break("bias-before", CORE + "rnn/packing.pxi",
          "bias[j] += bias_hh[2 * H + j]", "bias[j] += 0", NUMERICS),
    Break("leading-dimension-of-part-of-a-line", CORE + "rnn/layout.pxd",
          "(ceil_div(size, LINE) | 1) * LINE", "size + sizeof(double)", NUMERICS),
    # ---- the thread pool
    Break("partition-of-a-thread", CORE + "parallel/pool.pxd",
          "return length * rank // team", "return length // team * rank", NUMERICS),
    Break("threads-of-blas", CORE + "parallel/pool.pxi",
          "limit = min(limit, blas)", "pass", ("tests/test_robustness.py",)),
    Break("workers-in-a-mode-of-their-own", CORE + "parallel/pool.pxi",
          "set_fp_mode(pool.fp_mode)", "pass", POOL),
    Break("waits-never-sleep", CORE + "parallel/pool.pxi",
          "if now >= end:", "if now < 0:", POOL),
    Break("quota-of-one-cgroup", CORE + "cpus.py",
          "(group, *group.parents)", "[group]", POOL),
    Break("environment-above-the-quota", CORE + "__init__.py",
          "core.set_num_threads(min(count, most))", "core.set_num_threads(count)", POOL),
    Break("ctrl-c-waits-for-the-end", CORE + "rnn/plan.pxi",
          "if call.poll == NULL or part.rank != 0:", "if True:", ("tests/test_interrupt.py",)),
    # ---- the boundary
    Break("input-of-another-size", CORE + "binding.pyx",
          "if cnp.PyArray_DIM(x, ndim - 1) != layer.packed.input_size:", "if False:", ERRORS),
    Break("no-steps", CORE + "binding.pyx", "if shape.steps == 0:", "if False:", ERRORS),
    Break("state-of-another-batch", CORE + "binding.pyx",
          "if not fits(a, expected):", "if False:", ERRORS),
    Break("d_output-like-x", CORE + "binding.pyx",
          '"d_output", &shape.output,', '"d_output", &shape.x,', ERRORS),
    Break("out-of-any-shape", CORE + "binding.pyx",
          "and fits(a, expected) and", "and", ERRORS),
    Break("out-is-read-only", CORE + "binding.pyx",
          "and cnp.PyArray_ISWRITEABLE(a)", "", ERRORS),
    Break("overlap-of-out", CORE + "binding.pyx",
          "return extreme(a, -1) < extreme(b, 1) + size and", "return False and", INTERFACE),
    Break("stride-of-the-rows", CORE + "binding.pyx",
          "view.row = cnp.PyArray_STRIDE(a, row_axis) if",
          "view.row = cnp.PyArray_DIM(a, last) * cnp.PyArray_ITEMSIZE(a) if", INTERFACE),
    Break("x-is-not-saved", CORE + "binding.pyx",
          "set_sequence_view(&call.x, x_array, &shape)",
          "set_sequence_view(&call.x, x_array, &shape)\n    call.x_stays = True", INTERFACE),
    Break("h-before-the-step-goes-up", CORE + "binding.pyx",
          "calls[index].x.data += calls[index].x.step", "pass", NUMERICS),
    Break("one-buffer-between-layers", CORE + "binding.pyx",
          "calls[index + 1].x.data = calls[index].output.data", "calls[index + 1].x.data = start",
          NUMERICS),
    Break("forward-without-memory-is-lost", CORE + "binding.pyx",
          "state.restore(old, has_saved)", "pass", MEMORY),
    Break("backward-without-memory-is-lost", CORE + "binding.pyx",
          "state.restore(saved, True)", "pass", MEMORY),
    Break("gradients-without-memory-are-lost", CORE + "binding.pyx",
          "state.grads = old", "pass", MEMORY),
    Break("grads-that-are-held", CORE + "binding.pyx",
          "Py_REFCNT(found) == 2", "Py_REFCNT(found) >= 2", INTERFACE),
    Break("backward-of-a-replaced-forward", CORE + "saved.pxi",
          "if self.saved is saved:", "if self.saved is not None:", STATE),
    Break("saved-memory-that-is-held", CORE + "saved.pxi",
          "if Py_REFCNT(entry) > 2 or", "if", STATE),
    Break("eval-keeps-the-forward", CORE + "saved.pxi",
          "if not training:", "if False:", ERRORS),
    Break("replaced-keeps-the-old", CORE + "layer.pxi",
          "old | weights", "weights | old", WEIGHTS),
    # ---- gru.py, cell.py
    Break("batch-first-is-plain", "src/gru_c/gru.py",
          "BATCH_FIRST if self.batch_first else SEQUENCE", "SEQUENCE", INTERFACE),
    Break("step-is-saved", "src/gru_c/gru.py",
          "forward(self._layers, x_t, h, out, STEPS)",
          "forward(self._layers, x_t, h, out, self._state)", INTERFACE),
    Break("no-abort", "src/gru_c/gru.py",
          'self._state.abort("backward")', "pass", ("tests/test_interrupt.py",)),
    Break("gate-of-another-plane", "src/gru_c/cell.py",
          'r = property(lambda self: self._saved("r"))',
          'r = property(lambda self: self._saved("z"))', NUMERICS),
    Break("block-of-another-gate", "src/gru_c/cell.py",
          'enumerate("rzn")', 'enumerate("zrn")', INTERFACE),
    # ---- _checks, _module, _parameters
    Break("bool-is-a-size", "src/gru_c/_checks.py",
          "        if isinstance(value, (bool, np.bool_)):", "        if False:", ERRORS),
    Break("floats-are-cast", "src/gru_c/_checks.py",
          'a.dtype.kind in "biu"', 'a.dtype.kind in "biuf"', ERRORS),
    Break("hidden-of-another-size", "src/gru_c/_checks.py",
          "if h.shape[-1] != expected[-1]:", "if False:", ERRORS),
    Break("assignment-is-lost", "src/gru_c/_module.py",
          'done = swap(self.__dict__, "_layers", old, new(old))',
          "done = not self.__dict__.update(_layers=new(old))", STATE),
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
    # ---- the command line, the count of operations, sequences, the benchmark
    Break("status-after-ctrl-c", "src/gru_c/cli.py",
          "FAILED, INTERRUPTED = 1, 130", "FAILED, INTERRUPTED = 1, 1", COMMAND),
    Break("pixels-of-another-scale", "src/gru_c/cli.py",
          "return images.reshape(-1, 8, 8).astype(np.float64)",
          "return images.reshape(-1, 8, 8).swapaxes(1, 2).astype(np.float64)", COMMAND),
    Break("bias-of-one-side", "src/gru_c/complexity.py", "2 * units if bias", "units if bias",
          COUNTS),
    Break("one-direction-is-read", "src/gru_c/complexity.py",
          "D * (I + (L - 1) * D * H)", "D * (I + (L - 1) * H)", COUNTS),
    Break("padding-not-zeroed", "src/gru_c/sequences.py", "np.zeros(axes", "np.empty(axes",
          SEQUENCES),
    Break("mean-of-ratios", "bench/summary.py",
          "math.exp(", "(", BENCH),
    Break("operations-of-one-direction", "bench/shapes.py",
          "products = self.directions * sum(", "products = sum(", BENCH),
    Break("operations-of-padding", "bench/shapes.py",
          "6 * sum(self.lengths)", "6 * self.T * self.N", BENCH),
    Break("padding-is-compared", "bench/peers/base.py",
          "if self.ends is not None:", "if False:", BENCH),
]
