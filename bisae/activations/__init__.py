"""LM activations: computed once and shared by runs, or computed as they are read; in an order that can be resumed.

Source -> writer -> cache folder -> reader -> feed, in the order of `order`.

    <root>/<16 hex digits of the source's fingerprint>/
        manifest.json              what the folder holds: written last, deleted first
        tokens/00000.safetensors   token ids, language, document, position of shard 0
        layer02/00000.bin          layer 2 of shard 0: raw little-endian bfloat16 [token, d_model]
        used                       its time of change is the time of last use
        .lock                      held by the one process that writes
"""
