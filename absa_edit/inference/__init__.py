"""Ask an exported model: answers to sentences and aspects, and which tokens and layers carried one."""
