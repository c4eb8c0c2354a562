"""The functions of gru_c.h by ctypes, for tests: what a case (see family.py) gives in C.

Memory that a function is to write holds other bytes before.
"""

import ctypes
from contextlib import contextmanager

import numpy as np

import gru_c

api = gru_c.ctypes_api()


def address(a):
    return None if a is None else a.ctypes.data


def checked(status):
    assert status == api.GRU_OK, api.gru_status_text(status).decode()


def fresh(shape, dtype):
    """An array of numbers that no test expects."""
    return np.full(shape, -77, dtype)


class Calls:
    """Calls of a C model. The arrays are time-major and batched, in the dtype of the model."""

    def __init__(self, model, gru, threads=1):
        self.model, self.threads = model, threads
        self.suffix = {4: "f32", 8: "f64"}[gru.dtype.itemsize]
        self.shapes = {name: a.shape for name, a in gru.state_dict().items()}
        self.L, self.D, self.H = gru.num_layers, 1 + gru.bidirectional, gru.hidden_size
        self.dtype, self.bias = gru.dtype, gru.bias

    def __getattr__(self, name):
        """A function of the dtype of the model, that must return GRU_OK."""
        function = getattr(api, f"gru_{name}_{self.suffix}")
        return lambda *arguments: checked(function(*arguments))

    def memory(self, query, *arguments):
        """As many bytes as a query of the size says."""
        size = ctypes.c_size_t()
        getattr(self, query)(self.model, *arguments, ctypes.byref(size))
        return np.full(size.value, 0xff, np.uint8)

    def options(self, arrays):
        """Options that point to arrays, which must live as long."""
        return api.Options(**{name: address(a) for name, a in arrays.items()})

    def rows_of(self, call):
        """Of a call in Python: arrays as C has them."""
        arrays = {name: np.ascontiguousarray(call[name]) for name in ("mask", "resets")
                  if name in call}
        if "lengths" in call:
            arrays["lengths"] = call["lengths"].astype(np.intp)
        if "dropout_masks" in call:
            directions = [f"l{layer}{end}" for layer in range(self.L)
                          for end in ("", "_reverse")[:self.D]]
            names = [name for end in directions for name in
                     (f"output_{end.split('_')[0]}", f"input_{end}", f"recurrent_{end}")]
            arrays["dropout_masks"] = np.array(
                [address(call["dropout_masks"].get(name)) or 0 for name in names], np.uintp)
        return arrays

    def forward_of(self, call):
        """output and h_n of a forward in inference."""
        x, arrays = call["x"], self.rows_of(call)
        options = self.options(arrays)
        T, N, _ = x.shape
        output, h_n = fresh((T, N, self.D * self.H), self.dtype), self.states(N)
        workspace = self.memory("workspace_size", api.GRU_INFERENCE, T, N, self.threads, options)
        self.forward(self.model, T, N, address(x), address(call.get("h_0")), address(output),
                     address(h_n), address(workspace), workspace.size, self.threads, options)
        return {"output": output, "h_n": h_n}

    def states(self, N):
        return fresh((self.L * self.D, N, self.H), self.dtype)

    def train_on(self, call):
        """What `helpers.run` returns."""
        x, arrays = call["x"], self.rows_of(call)
        options = self.options(arrays)
        T, N, _ = x.shape
        output, h_n = fresh((T, N, self.D * self.H), self.dtype), self.states(N)
        saved = self.memory("saved_size", T, N, options)
        workspace = self.memory("workspace_size", api.GRU_TRAINING, T, N, self.threads, options)
        self.forward_training(
            self.model, T, N, address(x), address(call.get("h_0")), address(output), address(h_n),
            address(saved), saved.size, address(workspace), workspace.size, self.threads, options)
        dx, dh_0 = fresh(x.shape, self.dtype), self.states(N)
        grads = {name: fresh(shape, self.dtype) for name, shape in self.shapes.items()}
        pointers = np.zeros((self.L * self.D, 4), np.uintp)
        pointers[:, :4 if self.bias else 2].flat = [address(a) for a in grads.values()]
        workspace = self.memory("workspace_size", api.GRU_BACKWARD, T, N, self.threads, options)
        self.backward(
            self.model, T, N, address(call.get("d_output")), address(call.get("d_h_n")),
            address(dx), address(dh_0), address(pointers), address(saved), saved.size,
            address(workspace), workspace.size, self.threads, options)
        return {"output": output, "h_n": h_n, "dx": dx, "dh_0": dh_0, **grads}

    @contextmanager
    def stream(self, N, max_steps):
        stream = ctypes.c_void_p()
        self.stream_new(self.model, N, max_steps, self.threads, None, ctypes.byref(stream))
        yield stream
        checked(api.gru_stream_free(stream))

    def stream_of(self, call, max_steps, begin=0):
        """output and h_n of a stream: step by step up to `begin`, the rest at once."""
        x = call["x"]
        T, N, _ = x.shape
        output, h_n = fresh((T, N, self.H), self.dtype), self.states(N)
        with self.stream(N, max_steps) as stream:
            if "h_0" in call:
                self.stream_set_state(stream, address(call["h_0"]))
            for t in range(begin):
                self.stream_step(stream, address(x[t]), address(output[t]))
            self.stream_run(stream, T - begin, address(x[begin:]), address(output[begin:]))
            self.stream_get_state(stream, address(h_n))
        return {"output": output, "h_n": h_n}


def model_options(gru):
    """The options of a model in C that equals one in Python."""
    def activation(role):
        f = getattr(gru, role)
        return {role: getattr(api, f"GRU_ACTIVATION_{f.name.upper()}"),
                f"{role}_alpha": f.alpha or 0, f"{role}_beta": f.beta or 0}

    return api.Options(
        num_layers=gru.num_layers, bidirectional=gru.bidirectional,
        reverse=isinstance(gru, gru_c.ReverseGRU), reset_before=not gru.reset_after,
        training=gru.training, clip=gru.clip or 0, x_bits=gru.x_bits or 0,
        weights=getattr(api, f"GRU_WEIGHTS_{(gru.quantization or 'dtype').upper()}"),
        **activation("activation"), **activation("recurrent_activation"))


@contextmanager
def packed(gru, threads=1):
    """Calls of a model that C makes and packs from the parameters of `gru`."""
    model = ctypes.c_void_p()
    calls = Calls(model, gru, threads)
    calls.model_new(gru.input_size, gru.hidden_size, model_options(gru), ctypes.byref(model))
    each = 4 if gru.bias else 2
    parameters = [*gru.state_dict().values()]
    for index in range(calls.L * calls.D):
        given = [address(a) for a in parameters[each * index:each * (index + 1)]]
        calls.model_pack(model, index, *given, *[None] * (4 - each))
    yield calls
    checked(api.gru_model_free(model))


def handled(gru, threads=1):
    """Calls of the handle of a model."""
    return Calls(gru.handle(), gru, threads)
