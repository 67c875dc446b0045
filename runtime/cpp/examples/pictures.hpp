// Pictures as a stream of PPM, as ffmpeg writes them: ffmpeg -i drive.mp4 -f image2pipe -c:v ppm -
#ifndef FASTSEG_EXAMPLES_PICTURES_HPP
#define FASTSEG_EXAMPLES_PICTURES_HPP

#include <istream>
#include <ostream>

#include "../fastseg.hpp"

namespace fastseg {

struct Picture {
  int width = 0, height = 0;
  std::vector<std::uint8_t> pixels;  // RGB

  Frame frame() const { return {pixels.data(), width, height}; }
};

// Reads the next picture; false at the end of the stream.
inline bool read_ppm(std::istream& in, Picture& picture) {
  std::string kind, depth;
  if (!(in >> kind)) return false;
  in >> picture.width >> picture.height >> depth;
  const int least = std::min(picture.width, picture.height);
  const int most = std::max(picture.width, picture.height);
  if (!in || kind != "P6" || depth != "255" || least < 1 || most > kMaxFrameSide)
    throw Error("stdin is no stream of PPM pictures (P6, 255)");
  in.get();  // the one blank after the head
  picture.pixels.resize(std::size_t{3} * static_cast<std::size_t>(picture.width) *
                        static_cast<std::size_t>(picture.height));
  in.read(reinterpret_cast<char*>(picture.pixels.data()),
          static_cast<std::streamsize>(picture.pixels.size()));
  if (!in) throw Error("stdin ends in the middle of a picture");
  return true;
}

// Writes RGB pictures (PPM), or ids (PGM).
inline void write_pnm(std::ostream& out, const std::uint8_t* pixels, int width, int height,
                      int channels) {
  out << (channels == 3 ? "P6\n" : "P5\n") << width << ' ' << height << "\n255\n";
  out.write(reinterpret_cast<const char*>(pixels), std::streamsize{channels} * width * height);
}

}  // namespace fastseg

#endif
