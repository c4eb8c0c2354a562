# A model as gru_c.h knows it, over the packed weights of the layers of a model in Python.

@cython.final
cdef class Handle:
    """The weights of a model at one moment, for the functions of gru_c.h.

    It keeps them alive: hold it as long as C may use `address`. The model may be deleted, or get
    new weights, which are those of a new handle. Any number of threads may use a handle.

    Attributes
    ----------
    address : int
        A ``const gru_model *``. gru_model_free refuses it.
    capsule : PyCapsule
        The same, named ``"gru_c.model"``. It keeps the handle alive.
    dtype : numpy.dtype
        float32, for functions that end in _f32, or float64, for those in _f64.
    input_size, hidden_size, num_layers, directions : int
        I, H, L and D. With D = 2, layers have a second direction.
    training : bool
        Whether the weights of the backward are there: the model was in training mode.
    """
    cdef:
        Memory memory
        tuple layers
        Model *model

    def __cinit__(self, tuple layers):
        cdef:
            Layer layer = layers[0]
            Py_ssize_t count = len(layers), i
            Model *model
        self.layers = layers
        self.memory = Memory(sizeof(Model) + count * (sizeof(PackedLayer) + 1))
        self.model = model = <Model *> self.memory.data
        memset(model, 0, self.memory.size)
        model.layers = <PackedLayer *> (model + 1)
        for i in range(count):
            model.layers[i] = (<Layer> layers[i]).packed
        model.is_packed = <unsigned char *> (model.layers + count)
        memset(model.is_packed, 1, count)
        model.count = model.packed = count
        model.directions = directions_of(layers)
        model.context, model.storage = layer.packed.context, layer.packed.storage_ih
        model.reset_after = layer.packed.reset_after
        model.input_size, model.hidden_size = layer.packed.input_size, layer.packed.hidden_size
        model.reverse, model.training = layer.reverse, layer.training
        model.serial = new_serial()
        model.tag = MODEL_TAG

    def __reduce__(self):
        raise TypeError("a Handle is an address in this process: pickle or copy the model, and "
                        "call its handle()")

    def __repr__(self):
        return (f"<Handle at {self.address:#x}: {self.dtype}, input_size={self.input_size}, "
                f"hidden_size={self.hidden_size}, num_layers={self.num_layers}, "
                f"directions={self.directions}, training={self.training}>")

    @property
    def address(self):
        return <size_t> self.model

    @property
    def _as_parameter_(self):                              # ctypes takes the handle itself
        return self.address

    @property
    def capsule(self):
        capsule = PyCapsule_New(self.model, "gru_c.model", release_handle)
        PyCapsule_SetContext(capsule, <void *> self)
        Py_INCREF(self)
        return capsule

    @property
    def dtype(self):
        return (<Layer> self.layers[0]).dtype

    @property
    def input_size(self):
        return self.model.input_size

    @property
    def hidden_size(self):
        return self.model.hidden_size

    @property
    def num_layers(self):
        return self.model.count // self.model.directions

    @property
    def directions(self):
        return self.model.directions

    @property
    def training(self):
        return self.model.training


cdef void release_handle(object capsule) noexcept:
    Py_XDECREF(<PyObject *> PyCapsule_GetContext(capsule))
