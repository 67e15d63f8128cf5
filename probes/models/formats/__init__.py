"""What a configuration of ours says and transformers cannot read: one file a key of config.json."""
