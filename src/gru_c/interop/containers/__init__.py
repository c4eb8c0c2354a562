"""Files and the arrays in them: nothing here knows of a GRU.

zips.py         zip archives                    npz.py          .npz, of NumPy alone
pt.py           .pt files of PyTorch            pickles.py      the unpickler of those
pickled.py      what it gives                   pickle_names.py what it knows
hdf5.py         HDF5, by h5py                   safetensors.py  by safetensors
json_text.py    JSON                            reading.py      files opened
writing.py      files that appear as a whole
"""
