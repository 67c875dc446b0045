// Frames of Android's cameras as upright RGB.
#ifndef FASTSEG_EXAMPLES_ANDROID_CAMERA_HPP
#define FASTSEG_EXAMPLES_ANDROID_CAMERA_HPP

#include "../../fastseg.hpp"

namespace fastseg {

// A plane of android.media.Image: bytes from a row, and from a pixel, to the next.
struct Plane {
  const std::uint8_t* bytes;
  std::int64_t size;
  std::int64_t row_stride, pixel_stride;

  const std::uint8_t* at(std::ptrdiff_t x, std::ptrdiff_t y) const {
    return bytes + y * static_cast<std::ptrdiff_t>(row_stride) +
           x * static_cast<std::ptrdiff_t>(pixel_stride);
  }

  // Refuses a plane whose rows overlap, or that ends before its last pixel; the last row is often
  // not padded.
  void check(const char* name, std::int64_t columns, std::int64_t rows,
             std::int64_t pixel_bytes) const {
    const std::int64_t row = (columns - 1) * pixel_stride + pixel_bytes;
    const std::int64_t needed = (rows - 1) * row_stride + row;
    if (bytes == nullptr) throw Error(std::string(name) + " is no direct buffer");
    if (pixel_stride < pixel_bytes || (rows > 1 && row_stride < row) || size < needed)
      throw Error(std::string(name) + " has " + std::to_string(size) + " bytes; " +
                  std::to_string(columns) + "x" + std::to_string(rows) + " with strides of " +
                  std::to_string(row_stride) + " and " + std::to_string(pixel_stride) + " needs " +
                  std::to_string(needed) + ", and " + std::to_string(row) + " for a row");
  }
};

// Where the pixels of a frame go that is turned clockwise by 0, 90, 180 or 270 degrees: what
// ImageInfo.getRotationDegrees() says makes it upright.
struct Turn {
  Turn(int columns, int rows, int degrees) : width(columns), height(rows) {
    detail::check_sides(columns, rows);
    const std::ptrdiff_t w = columns, h = rows;
    if (degrees == 0) {
      first = 0, right = 1, down = w;
    } else if (degrees == 90) {
      first = h - 1, right = h, down = -1;
    } else if (degrees == 180) {
      first = w * h - 1, right = -1, down = -w;
    } else if (degrees == 270) {
      first = (w - 1) * h, right = -h, down = 1;
    } else {
      throw Error("a turn by " + std::to_string(degrees) + " degrees; 0, 90, 180 or 270");
    }
    if (degrees % 180 != 0) std::swap(width, height);
  }

  std::ptrdiff_t first, right, down;  // pixels
  int width, height;                  // afterwards
};

// out: (height, width, 3) of the turned frame.
inline void rgba_to_rgb(const Plane& rgba, int columns, int rows, const Turn& turn,
                        std::uint8_t* out) {
  rgba.check("the frame", columns, rows, 4);
  for (int y = 0; y < rows; ++y)
    for (int x = 0; x < columns; ++x)
      std::copy_n(rgba.at(x, y), 3, out + 3 * (turn.first + x * turn.right + y * turn.down));
}

// YUV_420_888 as the camera gives it: BT.601, the whole range, half the chroma both ways.
inline void yuv_to_rgb(const Plane& luma, const Plane& u, const Plane& v, int columns, int rows,
                       const Turn& turn, std::uint8_t* out) {
  luma.check("plane 0", columns, rows, 1);
  u.check("plane 1", (columns + 1) / 2, (rows + 1) / 2, 1);
  v.check("plane 2", (columns + 1) / 2, (rows + 1) / 2, 1);
  const auto byte = [](int value) {  // of 1/65536
    return static_cast<std::uint8_t>(std::clamp((value + 32768) >> 16, 0, 255));
  };
  for (int y = 0; y < rows; ++y)
    for (int x = 0; x < columns; ++x) {
      const int bright = *luma.at(x, y) * 65536;
      const int blue = *u.at(x / 2, y / 2) - 128, red = *v.at(x / 2, y / 2) - 128;
      std::uint8_t* const pixel = out + 3 * (turn.first + x * turn.right + y * turn.down);
      pixel[0] = byte(bright + 91881 * red);                  // 1.402
      pixel[1] = byte(bright - 22554 * blue - 46802 * red);   // 0.344136, 0.714136
      pixel[2] = byte(bright + 116130 * blue);                // 1.772
    }
}

}  // namespace fastseg

#endif
