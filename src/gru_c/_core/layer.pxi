# A layer: its parameters as arrays, and packed.

def bind(capsule):
    """Layers made from now on use the contexts in `capsule`."""
    set_contexts(<const Context *> PyCapsule_GetPointer(capsule, "gru_c.contexts"))


def bind_rounded(capsule, capsule_int8):
    """The same of layers of bfloat16, which use the contexts of a kernels module, and of int8."""
    cdef const Context *context = <const Context *> PyCapsule_GetPointer(capsule, "gru_c.contexts")
    set_rounded_context(BFLOAT16, of_bfloat16(BFLOAT16, context))
    set_rounded_context(BFLOAT16_BOTH, of_bfloat16(BFLOAT16_BOTH, context))
    context = <const Context *> PyCapsule_GetPointer(capsule_int8, "gru_c.context_int8")
    set_rounded_context(INT8, context)
    set_rounded_context(INT8_12_BITS, context)


def load_quantized():
    """Once: bind the kernels of rounded weights, which are not loaded before."""
    from gru_c._core import load_quantized as load
    load()


# How the weights of a layer are stored, by what a model calls it: quantization, x_bits.
STORAGE = {
    (None, None): <int> AS_DTYPE,
    ("bfloat16", None): <int> BFLOAT16,
    ("bfloat16", 16): <int> BFLOAT16_BOTH,
    ("int8", 8): <int> INT8,
    ("int8", 12): <int> INT8_12_BITS,
}


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
        dict arrays                    # the parameters, but not those that are stored rounded
    cdef readonly:
        tuple names                    # of the parameters in the model, as of NAMES
        tuple quantization             # a key of STORAGE
        bint training
        bint reverse
        tuple activations              # see _activations.core_arguments
        object dtype

    def __init__(self, dict weights, bint reset_after, bint training=True, tuple names=NAMES,
                 bint reverse=False, tuple activations=None, tuple quantization=(None, None)):
        self.names, self.reverse, self.activations = names, reverse, activations
        self.quantization = quantization
        if quantization[0] is not None:
            load_quantized()
        self.dtype = weights["weight_hh"].dtype
        self.type_number = self.dtype.num
        init_layer(&self.packed, STORAGE[quantization], self.dtype.itemsize,
                   weights["weight_ih"].shape[1], weights["weight_hh"].shape[1], reset_after)
        if activations is not None:
            set_activations(&self.packed, as_activations(activations))
        if self.packed.storage_ih == AS_DTYPE:
            self.arrays = {name: frozen(weights[name]) for name in NAMES if name in weights}
            self.pack(self.arrays, True, training)
        else:
            self.arrays = {name: frozen(weights[name]) for name in NAMES[2:] if name in weights}
            self.pack({name: np.ascontiguousarray(weights[name]) for name in NAMES[:2]}
                      | self.arrays, True, False)

    @property
    def weights(self):
        """The parameters as products use them: what is stored rounded is widened again."""
        if self.packed.storage_ih == AS_DTYPE:
            return self.arrays
        return {"weight_ih": self.widened(self.packed.w_ih, 1, self.packed.input_size),
                "weight_hh": self.widened(self.packed.w_hh, 0, self.packed.hidden_size)
                } | self.arrays

    cdef object widened(self, const PackedMatrix *gates, int first, Py_ssize_t k):
        """A read-only array of the stack r z n, whose gates are packed in turn from `first` on."""
        cdef Py_ssize_t H = self.packed.hidden_size, i
        stack = np.empty((3 * H, k), self.dtype)
        for i in range(3):
            unpack_rounded(&gates[(first + i) % 3], H,
                           <float *> cnp.PyArray_DATA(stack) + i * H * k)
        return frozen(stack)

    @property
    def nbytes(self):
        """Bytes of the parameters in memory, as arrays and packed."""
        size = sum(array.nbytes for array in self.arrays.values()) + self.forward_memory.size
        return size + (self.backward_memory.size if self.training else 0)

    def quantized(self, tuple quantization):
        """The layer with its weights stored in another way, for inference."""
        return Layer(self.weights, self.packed.reset_after, False, self.names, self.reverse,
                     self.activations, quantization)

    def __reduce__(self):
        return Layer, (self.weights, self.packed.reset_after, self.training, self.names,
                       self.reverse, self.activations, self.quantization)

    def replaced(self, weights):
        _, (old, *options) = self.__reduce__()
        return Layer(old | weights, *options)

    def for_mode(self, bint training):
        """The layer with or without the weights of the backward. The others are shared."""
        cdef Layer layer
        if training == self.training:
            return self
        if training and self.quantization[0] is not None:
            raise ValueError("a layer of rounded weights has no backward")
        layer = Layer.__new__(Layer)
        layer.packed, layer.forward_memory = self.packed, self.forward_memory
        layer.type_number, layer.names = self.type_number, self.names
        layer.reverse, layer.activations = self.reverse, self.activations
        layer.arrays, layer.dtype = self.arrays, self.dtype
        layer.quantization = self.quantization
        if training:
            layer.pack(self.arrays, False, True)
        else:
            layer.packed.w_ih_t.data = layer.packed.w_hh_t.data = layer.packed.w_hn_t.data = NULL
        return layer

    cdef int pack(self, dict arrays, bint forward, bint backward) except -1:
        """Pack the weights of the forward, those of the backward, or both."""
        cdef:
            void *weights[4]
            tuple names = NAMES
            int i
        for i in range(4):
            weight = arrays.get(names[i])
            weights[i] = NULL if weight is None else cnp.PyArray_DATA(weight)
        if forward:
            self.forward_memory = Memory(place_forward_weights(&self.packed, NULL))
            memset(self.forward_memory.data, 0, self.forward_memory.size)
            place_forward_weights(&self.packed, self.forward_memory.data)
        if backward:
            self.backward_memory = Memory(place_backward_weights(&self.packed, NULL))
            memset(self.backward_memory.data, 0, self.backward_memory.size)
            place_backward_weights(&self.packed, self.backward_memory.data)
            self.training = True
        if self.packed.context.itemsize == sizeof(float):
            fill(&self.packed, <const float **> weights, forward, backward)
        else:
            fill(&self.packed, <const double **> weights, forward, backward)
        return 0


cdef Activations as_activations(tuple activations) except *:
    """From (function, alpha, beta) of r and z, the same of n, and clip."""
    (f, alpha, beta), (f_n, alpha_n, beta_n), clip = activations
    return Activations(Activation(f, alpha, beta, clip, 0, 0),
                       Activation(f_n, alpha_n, beta_n, clip, 0, 0))


cdef void fill(PackedLayer *packed, const real **weights, bint forward, bint backward) noexcept:
    if forward:
        pack_forward_weights(packed, weights[0], weights[1], weights[2], weights[3])
    if backward:
        pack_backward_weights(packed, weights[0], weights[1])
