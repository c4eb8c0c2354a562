# A layer: its parameters as arrays, and packed.

cdef const Context *contexts = NULL              # of float and double: what layers are packed for


def bind(capsule):
    """Layers made from now on use the contexts in `capsule`."""
    global contexts
    contexts = <const Context *> PyCapsule_GetPointer(capsule, "gru_c.contexts")


@cython.final
cdef class Layer:
    """One direction of one layer: parameters (read-only, gate order r z n), and the same packed.

    A Layer is immutable. New weights make a new one, so that a call in another thread, or the
    backward of an earlier forward, keeps its own. Only a layer for training has the weights of the
    backward.
    """
    cdef:
        PackedLayer packed
        Memory forward_memory
        Memory backward_memory
        int type_number                # NumPy's
        tuple names                    # of the parameters in the model, as of NAMES
    cdef readonly:
        dict weights
        bint training
        bint reverse
        Py_ssize_t input_size
        Py_ssize_t hidden_size
        object dtype

    def __init__(self, dict weights, bint reset_after, bint training=True, tuple names=NAMES,
                 bint reverse=False):
        self.weights = {name: frozen(weights[name]) for name in NAMES if name in weights}
        self.names, self.reverse = names, reverse
        self.input_size = self.weights["weight_ih"].shape[1]
        self.hidden_size = self.weights["weight_hh"].shape[1]
        self.dtype = self.weights["weight_hh"].dtype
        self.type_number = self.dtype.num
        init_layer(&self.packed, &contexts[self.dtype.itemsize == sizeof(double)],
                   self.input_size, self.hidden_size, reset_after)
        self.pack_forward()
        if training:
            self.pack_backward()

    def __reduce__(self):
        return Layer, (self.weights, bool(self.packed.reset_after), bool(self.training), self.names,
                       bool(self.reverse))

    def replaced(self, weights):
        return Layer(self.weights | weights, self.packed.reset_after, self.training, self.names,
                     self.reverse)

    def for_mode(self, bint training):
        """The layer with or without the weights of the backward. The others are shared."""
        cdef Layer layer
        if training == self.training:
            return self
        layer = Layer.__new__(Layer)
        layer.packed, layer.forward_memory = self.packed, self.forward_memory
        layer.type_number, layer.names = self.type_number, self.names
        layer.reverse = self.reverse
        layer.weights, layer.dtype = self.weights, self.dtype
        layer.input_size, layer.hidden_size = self.input_size, self.hidden_size
        if training:
            layer.pack_backward()
        else:
            memset(&layer.packed.w_ih_t, 0, sizeof(PackedMatrix))
            memset(&layer.packed.w_hh_t, 0, sizeof(PackedMatrix))
            memset(&layer.packed.w_hn_t, 0, sizeof(PackedMatrix))
        return layer

    cdef int pack_forward(self) except -1:
        cdef:
            void *weight_ih = cnp.PyArray_DATA(self.weights["weight_ih"])
            void *weight_hh = cnp.PyArray_DATA(self.weights["weight_hh"])
            void *bias_ih = NULL
            void *bias_hh = NULL
        self.forward_memory = zeroed(place_forward_weights(&self.packed, NULL))
        place_forward_weights(&self.packed, self.forward_memory.data)
        if "bias_ih" in self.weights:
            bias_ih = cnp.PyArray_DATA(self.weights["bias_ih"])
            bias_hh = cnp.PyArray_DATA(self.weights["bias_hh"])
        if self.packed.context.itemsize == sizeof(float):
            pack_forward_weights(&self.packed, <float *> weight_ih, <float *> weight_hh,
                                 <float *> bias_ih, <float *> bias_hh)
        else:
            pack_forward_weights(&self.packed, <double *> weight_ih, <double *> weight_hh,
                                 <double *> bias_ih, <double *> bias_hh)
        return 0

    cdef int pack_backward(self) except -1:
        cdef:
            void *weight_ih = cnp.PyArray_DATA(self.weights["weight_ih"])
            void *weight_hh = cnp.PyArray_DATA(self.weights["weight_hh"])
        self.backward_memory = zeroed(place_backward_weights(&self.packed, NULL))
        place_backward_weights(&self.packed, self.backward_memory.data)
        if self.packed.context.itemsize == sizeof(float):
            pack_backward_weights(&self.packed, <float *> weight_ih, <float *> weight_hh)
        else:
            pack_backward_weights(&self.packed, <double *> weight_ih, <double *> weight_hh)
        self.training = True
        return 0


cdef Memory zeroed(size_t size):
    cdef Memory memory = Memory(size)
    memset(memory.data, 0, size)
    return memory
