"""From a network and fitted slices to whole cases on their native grid."""
