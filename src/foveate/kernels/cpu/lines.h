// Lines: the means, gates or gradients of one row or one column of a map, with contiguous channels.

// One sample's lines, `apart` floats from each other.
struct Lines {
  float *rows, *columns;
  int64_t apart;

  // More than the channels: lines at a distance of a multiple of 4 KB would evict each other from the first-level
  // cache.
  static int64_t distance(const Shape& s) { return (s.channels + 15) / 16 * 16 + 16; }
  Lines of(int64_t sample, const Shape& s) const {
    return {rows + sample * s.height * apart, columns + sample * s.width * apart, apart};
  }
  float* row(int64_t h, int64_t channel) const { return rows + h * apart + channel; }
  float* column(int64_t w, int64_t channel) const { return columns + w * apart + channel; }
};

// The gates of one sample: scale * sigmoid.
struct Gates {
  Lines sigmoids;
  float scale;

  Vec of(Vec sigmoid) const { return scale * sigmoid; }
};

// Stores v, or adds it to the stored value.
template <class L>
INLINE void put(float* to, Vec v, bool first, L lanes) {
  store(to, first ? v : load(to, lanes) + v, lanes);
}
