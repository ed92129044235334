"""The Keras backend: a mechanism as a native `keras.Layer` of ordinary layers."""
