# A layer: its parameters as arrays, and packed.

def bind(capsule):
    """Layers made from now on use the contexts in `capsule`."""
    set_contexts(<const Context *> PyCapsule_GetPointer(capsule, "gru_c.contexts"))


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
    cdef readonly:
        tuple names                    # of the parameters in the model, as of NAMES
        dict weights
        bint training
        bint reverse
        tuple activations              # see _activations.core_arguments
        object dtype

    def __init__(self, dict weights, bint reset_after, bint training=True, tuple names=NAMES,
                 bint reverse=False, tuple activations=None):
        self.weights = {name: frozen(weights[name]) for name in NAMES if name in weights}
        self.names, self.reverse, self.activations = names, reverse, activations
        self.dtype = self.weights["weight_hh"].dtype
        self.type_number = self.dtype.num
        init_layer(&self.packed, context_of(self.dtype.itemsize),
                   self.weights["weight_ih"].shape[1], self.weights["weight_hh"].shape[1],
                   reset_after)
        if activations is not None:
            set_activations(&self.packed, as_activations(activations))
        self.pack(True, training)

    def __reduce__(self):
        return Layer, (self.weights, self.packed.reset_after, self.training, self.names,
                       self.reverse, self.activations)

    def replaced(self, weights):
        _, (old, *options) = self.__reduce__()
        return Layer(old | weights, *options)

    def for_mode(self, bint training):
        """The layer with or without the weights of the backward. The others are shared."""
        cdef Layer layer
        if training == self.training:
            return self
        layer = Layer.__new__(Layer)
        layer.packed, layer.forward_memory = self.packed, self.forward_memory
        layer.type_number, layer.names = self.type_number, self.names
        layer.reverse, layer.activations = self.reverse, self.activations
        layer.weights, layer.dtype = self.weights, self.dtype
        if training:
            layer.pack(False, True)
        else:
            layer.packed.w_ih_t.data = layer.packed.w_hh_t.data = layer.packed.w_hn_t.data = NULL
        return layer

    cdef int pack(self, bint forward, bint backward) except -1:
        """Pack the weights of the forward, those of the backward, or both."""
        cdef:
            void *weights[4]
            tuple names = NAMES
            int i
        for i in range(4):
            weight = self.weights.get(names[i])
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
