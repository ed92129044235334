// Memory that detects accesses outside a buffer.
// Either heap buffers of the exact size, which AddressSanitizer guards, or pages that end where the buffer ends, which
// also catch the masked loads and stores that AddressSanitizer cannot see. All memory holds NaN at first, as float and
// as bfloat16.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

class Buffer {
 public:
  static inline bool in_pages = false;

  explicit Buffer(int64_t bytes) : bytes_(static_cast<size_t>(bytes)), page_(in_pages ? static_cast<size_t>(sysconf(_SC_PAGESIZE)) : 0) {
    base_ = page_ ? map() : new char[bytes_];
    at_ = base_ + usable() - bytes_;
    std::memset(at_, 0xff, bytes_);
  }
  Buffer(Buffer&& other) noexcept
      : bytes_(other.bytes_), page_(other.page_), base_(std::exchange(other.base_, nullptr)), at_(other.at_) {}
  Buffer(const Buffer&) = delete;
  ~Buffer() {
    if (!base_) return;
    if (page_) munmap(base_, usable() + page_);
    else delete[] base_;
  }

  // After this call a write is a fault where the memory can be protected.
  Buffer frozen() && {
    if (page_) mprotect(base_, usable(), PROT_READ);
    return std::move(*this);
  }

  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(at_);
  }
  size_t bytes() const { return bytes_; }
  bool operator==(const Buffer& other) const { return bytes_ == other.bytes_ && std::memcmp(at_, other.at_, bytes_) == 0; }

 private:
  size_t bytes_, page_;
  char *base_, *at_;

  size_t usable() const { return page_ ? (bytes_ + page_ - 1) / page_ * page_ : bytes_; }

  char* map() {
    void* mapped = mmap(nullptr, usable() + page_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED || mprotect(static_cast<char*>(mapped) + usable(), page_, PROT_NONE) != 0) {
      std::perror("no guarded pages");
      std::exit(2);
    }
    return static_cast<char*>(mapped);
  }
};
