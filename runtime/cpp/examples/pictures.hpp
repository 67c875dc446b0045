// Pictures as a stream of PPM, as ffmpeg writes them: ffmpeg -i drive.mp4 -f image2pipe -c:v ppm -
#ifndef FASTSEG_EXAMPLES_PICTURES_HPP
#define FASTSEG_EXAMPLES_PICTURES_HPP

#include <chrono>
#include <iostream>

#include "../fastseg.hpp"

namespace fastseg {

inline constexpr std::size_t kPiece = 1 << 20;  // bytes that a picture grows by as it is read

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
  const std::size_t bytes = std::size_t{3} * static_cast<std::size_t>(picture.width) *
                            static_cast<std::size_t>(picture.height);
  for (std::size_t at = 0; at < bytes; at = picture.pixels.size()) {  // a head alone has no memory
    picture.pixels.resize(std::min(bytes, std::max(at + kPiece, picture.pixels.size())));
    in.read(reinterpret_cast<char*>(picture.pixels.data() + at),
            static_cast<std::streamsize>(picture.pixels.size() - at));
    if (!in) throw Error("stdin ends in the middle of a picture");
  }
  return true;
}

// Writes RGB pictures (PPM), or ids (PGM).
inline void write_pnm(std::ostream& out, const std::uint8_t* pixels, int width, int height,
                      int channels) {
  out << (channels == 3 ? "P6\n" : "P5\n") << width << ' ' << height << "\n255\n";
  out.write(reinterpret_cast<const char*>(pixels), std::streamsize{channels} * width * height);
}

// A number of threads as it stands on a command line; 0 where it does not: the engine's choice.
inline int read_threads(int argc, char** argv, int at) {
  const std::string text = at < argc ? argv[at] : "0";
  if (text.empty() || text.size() > 3 || text.find_first_not_of("0123456789") != text.npos)
    throw Error("expected a number of threads, 0 to 999, got '" + text + "'");
  return std::stoi(text);
}

// Ids or overlays of the pictures on stdin to stdout, the time of each to stderr.
template <class Engine>
void segment_stream(Segmenter<Engine>& segmenter, bool draws) {
  using Clock = std::chrono::steady_clock;
  std::vector<std::uint8_t> ids, drawn;
  for (Picture picture; read_ppm(std::cin, picture);) {
    const Frame frame = picture.frame();
    ids.resize(picture.pixels.size() / 3);
    const Clock::time_point start = Clock::now();
    segmenter.infer(frame, ids.data());
    const std::chrono::duration<double, std::milli> taken_ms = Clock::now() - start;
    std::cerr << taken_ms.count() << " ms\n";
    if (draws) {
      drawn.resize(picture.pixels.size());
      overlay(frame, ids.data(), segmenter.contract().classes, drawn.data());
    }
    write_pnm(std::cout, draws ? drawn.data() : ids.data(), frame.width, frame.height,
              draws ? 3 : 1);
    if (!std::cout.flush())  // what reads them may be a display
      throw Error("stdout cannot be written to: no space left, or its reader has gone");
  }
  if (ids.empty()) throw Error("stdin has no picture; does what writes it say why?");
}

// What main() of an example returns: argv[1] is the folder, argv[2] "ids" or "overlay". `usage`
// begins with the program's name; `open` makes the engine of a contract.
template <class Open>
int answer_stream(int argc, char** argv, const std::string& usage, const Open& open) try {
  const std::string kind = argc > 2 ? argv[2] : "";
  if (argc > 5 || (kind != "ids" && kind != "overlay")) throw Error("usage: " + usage);
  std::ios::sync_with_stdio(false);
  const Contract contract = read_contract(argv[1]);
  Segmenter segmenter(contract, open(contract));
  segment_stream(segmenter, kind == "overlay");
  return 0;
} catch (const std::exception& error) {  // the engine's own among them
  std::cerr << usage.substr(0, usage.find(' ')) << ": " << error.what() << '\n';
  return 1;
}

}  // namespace fastseg

#endif
