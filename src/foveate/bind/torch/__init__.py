"""The torch backend: a mechanism as a native `nn.Module` of ordinary layers."""
